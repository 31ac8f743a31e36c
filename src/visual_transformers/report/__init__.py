"""What many runs say together: tables, pictures and a page, from the files that they left."""
