from tests.support.one_thread import one_thread  # noqa: F401 (pytest finds the fixture by this import)
