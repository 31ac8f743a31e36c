from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from visual_transformers.config.adoption import ADOPTED, adopt
from visual_transformers.config.instantiate import ALLOWED_TARGETS, build
from visual_transformers.config.validation import validate
from visual_transformers.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
YAML_FILES = sorted([*CONF.rglob("*.yaml"), *EXPERIMENTS.rglob("*.yaml")])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=abc", ["optimizer.lr=abc", "expected float"]),
        ("training.epochs=1.5", ["training.epochs=1.5", "expected int"]),
        ("+optimizer.beta=0.9", ["optimizer.beta", "no such key", "did you mean optimizer.betas"]),
        ("+sead=1", ["sead", "no such key", "did you mean seed"]),
        ("hardware.precision=fp8", ["hardware.precision=fp8", "fp32, tf32, bf16, fp16, fp64"]),
        ("task.metric=mIoU", ["task.metric=mIoU", "top1, top5"]),
        ("training.epochs=0", ["training.epochs=0: must be at least 1"]),
        ("training.clip_norm=0", ["training.clip_norm=0", "above 0"]),
        ("task.label_smoothing=1", ["task.label_smoothing=1", "below 1"]),
        ("inference.window=0", ["inference.window=0", "at least 1"]),
        ("inference.overlap=1", ["inference.overlap=1", "below 1"]),
        ("inference.overlap=-0.1", ["inference.overlap=-0.1", "at least 0"]),
        ("inference.overlap=nan", ["inference.overlap=nan", "below 1"]),
        ("inference.scales=[]", ["inference.scales=[]", "one factor or more"]),
        ("inference.scales=[1.0,0]", ["inference.scales=[1.0, 0.0]", "above 0"]),
        ("inference.scales=[inf]", ["inference.scales=[inf]", "finite"]),
        ("inference.scales=[a]", ["inference.scales=['a']", "expected a list of float"]),
        ("inference.scales=1.0", ["inference.scales=1.0", "expected a list of float, as [1.0]"]),
        ("training.accumulate=7", ["data.batch_size=32", "training.accumulate=7"]),
        ("data=imagenet", ["data.root is not set"]),
        ("+model.num_classes=3", ["model.num_classes", "supplied by the runner"]),
        ("model=vt_fpn", ["vt_fpn is for segmentation", "task=segmentation"]),
        ("data=digit_scenes", ["DigitScenes is for segmentation", "task=segmentation", "choose another data set"]),
        ("model._target_=null", ["model._target_"]),
        ("optimizer._target_=5", ["optimizer._target_=5"]),
        ("training=5", ["training=5", "expected a group of keys"]),
        ("logger.files=null", ["logger.files", "expected a group of keys"]),
        ("seed=[1]", ["seed=[1]", "expected int"]),
        ("data.image_size=[96,96]", ["data.image_size", "expected int"]),
        ("model.tokens=[1]", ["model.tokens=[1]", "expected int"]),
        ("training.clip_norm=[1]", ["training.clip_norm=[1]", "expected"]),
        ("optimizer.lr=nan", ["optimizer.lr=nan", "above 0"]),
        ("name=..", ["name=.."]),
        ("name=a//b", ["name=a//b"]),
        ("weights=''", ["weights.file is empty"]),
        ("+model.nun_classes=3", ["model.nun_classes", "no such key"]),
    ],
)
def test_a_wrong_setting_is_refused_by_name_with_what_was_expected(composed, override, words):
    with pytest.raises(ConfigError) as refused:
        validate(composed(override))
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("predict.top=0", ["predict.top=0", "at least 1"]),
        ("profile.image_size=[224]", ["profile.image_size=[224]", "height and width"]),
        ("profile.image_size=[224,0]", ["profile.image_size=[224, 0]", "at least 1"]),
        ("profile.image_size=224", ["profile.image_size=224", "expected"]),
        ("profile.image_size=[a,b]", ["profile.image_size", "expected"]),
        ("profile.classes=0", ["profile.classes=0", "at least 1"]),
        ("profile.batch_size=0", ["profile.batch_size=0", "at least 1"]),
        ("profile.seconds=-1", ["profile.seconds=-1", "at least 0"]),
        ("profile.seconds=inf", ["profile.seconds=inf", "finite"]),
        ("profile.repeats=0", ["profile.repeats=0", "at least 1"]),
        ("export.formats=[]", ["export.formats=[]", "one or more of safetensors, torch_export, onnx"]),
        ("export.formats=[onnx,tflite]", ["export.formats=[onnx,tflite]", "one or more of safetensors"]),
        ("export.formats=onnx", ["export.formats=onnx", "expected"]),
        ("export.tolerance=0", ["export.tolerance=0", "above 0"]),
        ("input=''", ["input is empty"]),
    ],
)
def test_a_wrong_setting_of_a_mode_is_refused(composed, override, words):
    section = override.partition(".")[0]
    with pytest.raises(ConfigError) as refused:
        validate(composed("mode=predict" if section.startswith("input") else f"mode={section}", override))
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize(
    ("override", "ends"), [("training.epochs=0", "at least 1"), ("optimizer.lr=0", "above 0, and finite")]
)
def test_an_integer_is_not_asked_to_be_finite(composed, override, ends):
    with pytest.raises(ConfigError, match=f"{ends}$"):
        validate(composed(override))


def test_a_group_is_named_by_its_option_where_that_is_known(composed):
    with pytest.raises(ConfigError, match=r"^model=resnet18 is for classification"):
        validate(composed("task=segmentation", "model=resnet18"), {"model": "resnet18"})
    augmented = composed("data=imagenet", "data.root=x", "data/augmentation=scale_crop_flip")
    with pytest.raises(ConfigError, match=r"data/augmentation=scale_crop_flip is for segmentation"):
        validate(augmented, {"data/augmentation": "scale_crop_flip"})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["mode=profile", "weights.file=a.pt"], ["weights: mode=profile reads no weights"]),
        (["mode=predict", "weights.backbone_only=true"], ["weights.backbone_only", "mode=predict"]),
        (["mode=test", "debug=limit"], ["debug.samples=256: only for mode=train"]),
        (
            ["data=imagenet", "data.root=x", "data/augmentation=scale_crop_flip"],
            ["data/augmentation=ScaleCropFlip is for segmentation, but task=classification"],
        ),
        (["+predict.top=3"], ["predict: only for mode=predict. Choose that mode"]),
        (["+everything=3"], ["everything: is supplied by the runner"]),
        (["mode=report", "report=null"], ["report=None: expected a group of keys"]),
    ],
)
def test_a_setting_that_the_mode_would_pass_over_is_refused(composed, overrides, words):
    with pytest.raises(ConfigError) as refused:
        validate(composed(*overrides))
    assert all(word in str(refused.value) for word in words)


def test_a_mode_without_its_keys_is_refused(composed):
    """A file that sets `mode: predict` as a value brings none of them."""
    cfg = composed()
    cfg.mode = "predict"
    with pytest.raises(ConfigError, match=r"mode=predict: its keys are missing \(input, predict\)\. Choose the mode"):
        validate(cfg)


@pytest.mark.parametrize("mode", ["predict", "explain", "export", "profile"])
def test_the_data_sets_folder_is_asked_for_only_where_it_is_read(composed, mode):
    config = validate(composed(f"mode={mode}", "data=imagenet"))
    with pytest.raises(ConfigError, match=r"^data\.root is not set\. Add data\.root=VALUE to the command line\.$"):
        build(config.data, "data")


@pytest.fixture
def trained(composed):
    """The settings of a run with other ones than the defaults."""
    return validate(
        composed("model=vt_resnet34", "model.tokens=8", "data.image_size=64", "model.dropout=0.1")
    ).everything


def test_a_trained_model_s_settings_are_adopted(composed, trained):
    cfg = composed()
    adopt(cfg, trained, [], "a.pt")
    assert {group: OmegaConf.to_container(cfg[group]) for group in ADOPTED} == {g: trained[g] for g in ADOPTED}


def test_what_the_command_line_sets_takes_away_or_chooses_wins_over_adopted_settings(composed, trained):
    overrides = ["model.tokens=4", "~model.dropout", "data=digits"]
    cfg = composed("model.tokens=4", "data=digits")
    adopt(cfg, trained, overrides, "a.pt")
    assert (cfg.model.tokens, cfg.model._target_) == (4, trained["model"]["_target_"])
    assert "dropout" not in cfg.model
    assert cfg.data.image_size == composed().data.image_size


def test_a_key_that_the_trained_configuration_lacks_can_be_set(composed, trained):
    del trained["model"]["zero_init"]
    cfg = composed("model.zero_init=true")
    adopt(cfg, trained, ["model.zero_init=true"], "a.pt")
    assert validate(cfg).model == trained["model"] | {"zero_init": True}


def test_all_problems_are_reported_at_once(composed):
    with pytest.raises(ConfigError) as refused:
        validate(composed("name=..", "optimizer.lr=abc", "training.epochs=0", "task.metric=foo", "model=panoptic_fpn"))
    assert len(str(refused.value).splitlines()) == 5


def test_a_builder_of_the_library_is_a_target_with_its_own_keys(composed):
    target = ["model._target_=visual_transformers.models.vt_resnet34", "model.modules=3"]
    assert type(build(validate(composed(*target)).model, "model", num_classes=3)).__name__ == "VTResNet"
    with pytest.raises(ConfigError, match=r"model\.tokens=x: expected int"):
        validate(composed(*target, "model.tokens=x"))
    with pytest.raises(ConfigError, match="vt_resnet34 is for classification"):
        validate(composed("task=segmentation", "model=vt_resnet18", *target))


@pytest.mark.parametrize("choice", ["task=classification", "task=segmentation", "model=resnet18", "optimizer=rmsprop"])
def test_defaults_are_accepted(composed, choice):
    validate(composed(choice))


def test_choosing_segmentation_picks_its_model_data_and_optimizer(composed):
    cfg = composed("task=segmentation")
    assert cfg.model._target_.endswith("vt_fpn")
    assert cfg.data._target_.endswith("DigitScenes")
    assert cfg.optimizer._target_.endswith("AdamW")


def test_a_model_on_the_command_line_wins_over_the_task_s(composed):
    assert composed("task=segmentation", "model=panoptic_fpn").model._target_.endswith("panoptic_fpn")


def test_a_recipe_picks_its_task_and_a_model_on_the_command_line_still_wins(composed):
    cfg = composed("recipe=camvid_small", "data.root=x", "model=panoptic_fpn")
    assert cfg.task._target_.endswith("Segmentation")
    assert cfg.model._target_.endswith("panoptic_fpn")
    assert cfg.model.backbone == "resnet18"


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.hub.load", "torch.load", "hydra.utils.call"])
def test_a_target_outside_the_allow_list_is_refused_before_it_is_imported(target):
    with pytest.raises(ConfigError, match=re.escape(ALLOWED_TARGETS[0])):
        build({"_target_": target}, "model")


def test_a_target_that_leads_out_of_an_allowed_module_is_refused():
    with pytest.raises(ConfigError, match="not a class or function of an allowed package"):
        build({"_target_": "visual_transformers.cli.main.os.system", "command": "true"}, "model")


def test_a_forbidden_target_deep_in_a_node_is_refused():
    with pytest.raises(ConfigError, match=r"model\.a: contains _target_=os\.system, but none is allowed here"):
        build({"_target_": "torch.nn.Sequential", "a": [{"b": {"_target_": "os.system"}}]}, "model")
    with pytest.raises(ConfigError, match=r"model\._args_: is not supported"):
        build({"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system"}]}, "model")


def test_an_allowed_target_is_built_with_its_keys_and_what_is_supplied():
    optimizer = build(
        {"_target_": "torch.optim.SGD", "lr": 0.5}, "optimizer", params=[torch.nn.Parameter(torch.ones(1))]
    )
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    "setting", [{"tokens": -3}, {"tokens": 0}, {"token_groups": 0}, {"token_channels": 0}, {"modules": 0}]
)
def test_sizes_that_no_model_can_have_are_refused_with_their_key(setting):
    [(key, value)] = setting.items()
    with pytest.raises(ConfigError, match=rf"^model: visual_transformers\.models\.VTResNet refuses.*: {key}={value}: "):
        build({"_target_": "visual_transformers.models.VTResNet"} | setting, "model", num_classes=3)


def test_channels_that_no_model_can_have_are_refused():
    with pytest.raises(ConfigError, match=r"^model: visual_transformers\.models\.VTResNet refuses"):
        build({"_target_": "visual_transformers.models.VTResNet", "channels": 0}, "model", num_classes=3)


def test_what_a_target_refuses_is_said_with_its_path():
    node = {"_target_": "torch.optim.SGD", "lr": 0.1, "nesterov": True}
    with pytest.raises(ConfigError, match=r"optimizer: torch\.optim\.SGD refuses its arguments: Nesterov"):
        build(node, "optimizer", params=[torch.nn.Parameter(torch.ones(1))])


def test_a_model_of_torchvision_can_be_named(composed):
    validate(composed("model._target_=torchvision.models.resnet18", "~model.tokens", "~model.token_channels",
                     "~model.channels", "~model.modules", "~model.group_width", "~model.token_groups",
                     "~model.stem_stride"))  # fmt: skip


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_key_has_a_comment(path):
    in_block, bare = False, []
    for line in path.read_text().splitlines():
        if in_block and (line.startswith("      ") or not line.strip()):
            continue  # the text of --help
        in_block = line.rstrip().endswith(("|", "# text of --help"))
        key = re.match(r"\s*(- )?([\w/]+( \w+)?):\s*(.*)$", line)
        opens_a_node = key and not key[4].split("#")[0].strip()
        if key and key[2] != "_target_" and not opens_a_node and "override" not in line and "#" not in line:
            bare.append(line)
    assert not bare


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_file_is_valid_yaml_that_opens_with_a_comment(path):
    assert path.read_text().startswith("#")
    assert yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "study").glob("ablation_*.yaml")), ids=lambda path: path.stem)
def test_every_job_of_an_ablation_is_accepted_and_another_model(composed, path):
    [(key, values)] = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"].items()
    models = set()
    for value in values.split(","):
        config = validate(composed(f"study={path.stem}", f"{key}={value}"))
        models.add(repr(build(config.model | {"token_channels": 32}, "model", num_classes=3)))
    assert len(models) == len(values.split(","))
