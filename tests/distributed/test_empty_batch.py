"""A rank without images takes part in a step with an empty batch, which must run and add nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from visual_transformers.models import panoptic_fpn, resnet18, vt_fpn, vt_resnet18
from visual_transformers.training.distillation import Distillation

REGULARISED = {"num_classes": 5, "dropout": 0.2, "stochastic_depth": 0.1}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"reassociate": False, "norm": "pre", "heads": 2},
    {"tokenizer": "pooling", "norm": "post"},
    {"tokenizer": "clustering", "token_module": "none", "pixel_convs": False, "group_width": None},
    {"token_module": "graph"},
]
MODELS = {
    "resnet18": lambda: resnet18(**REGULARISED),
    "panoptic_fpn": lambda: panoptic_fpn(**REGULARISED, backbone="resnet18"),
    "vt_resnet18 without recurrence": lambda: vt_resnet18(**REGULARISED, token_channels=32, recurrent=False),
    "vt_fpn without laterals": lambda: vt_fpn(
        **REGULARISED, backbone="resnet18", token_channels=32, pyramid_channels=None
    ),
} | {
    f"{name} {variant}": lambda make=make, variant=variant: make(**REGULARISED, token_channels=32, **variant)
    for variant in VARIANTS
    for name, make in (
        ("vt_resnet18", vt_resnet18),
        ("vt_fpn", lambda **options: vt_fpn(backbone="resnet18", **options)),
    )
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("train", [True, False])
def test_an_empty_batch_gives_zero_gradients_and_leaves_the_statistics_alone(name, train):
    model = MODELS[name]().train(train)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    logits = model(torch.zeros(0, 3, 64, 64))
    targets = torch.zeros((0, *logits.shape[2:]), dtype=torch.int64)
    loss = F.cross_entropy(logits, targets, reduction="sum")
    loss = Distillation().loss_sum(loss, logits, logits.detach(), targets != 255)
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in model.parameters())
    changed = [key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])]
    assert all(key.endswith("num_batches_tracked") for key in changed)
