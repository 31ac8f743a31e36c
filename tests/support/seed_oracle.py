"""The reference implementation's four networks, written down from its description: its names, its equations.

Features X are (B, C, HW) and tokens T (B, D, L), columns being tokens. The softmax at the end of its segmenters is
left off, and the blocks of a stage have weights of their own, so that a mix-up of two blocks would show.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (256, 512, 1024, 2048)


def conv_bn(c_in: int, c_out: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(c_in, c_out, size, stride, size // 2, bias=False), nn.BatchNorm2d(c_out)


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, plain: list[nn.Module]):
        super().__init__()
        self.plain_arch = nn.Sequential(*plain)
        if stride > 1 or c_in != c_out:
            self.downsample = nn.Sequential(*conv_bn(c_in, c_out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.plain_arch(x) + (self.downsample(x) if hasattr(self, "downsample") else x))


def basic(c_in: int, c_out: int, stride: int = 1) -> Block:
    return Block(c_in, c_out, stride, [*conv_bn(c_in, c_out, 3, stride), nn.ReLU(), *conv_bn(c_out, c_out, 3)])


def bottleneck(c_in: int, width: int, stride: int = 1) -> Block:
    plain = [*conv_bn(c_in, width, 1), nn.ReLU(), *conv_bn(width, width, 3, stride), nn.ReLU()]
    return Block(c_in, 4 * width, stride, [*plain, *conv_bn(width, 4 * width, 1)])


def four_stages() -> nn.Sequential:
    blocks = [basic(64, 64), basic(64, 64), basic(64, 128, 2), basic(128, 128), basic(128, 256, 2), basic(256, 256)]
    return nn.Sequential(*conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks)


class Head(nn.Module):
    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.fc = nn.Linear(channels, classes)


class ResNet18(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.backbone = four_stages()
        self.conv_5 = nn.Sequential(basic(256, 512, 2), basic(512, 512))
        self.classification_head = Head(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classification_head.fc(self.conv_5(self.backbone(images)).mean(dim=(2, 3)))


def conv1d(c_in: int, c_out: int) -> nn.Conv1d:
    return nn.Conv1d(c_in, c_out, 1, bias=False)


class FilterTokenizer(nn.Module):
    def __init__(self, channels: int, tokens: int, token_channels: int):
        super().__init__()
        self.W_a = conv1d(channels, tokens)
        self.W_v = conv1d(channels, token_channels)

    def forward(self, x: Tensor) -> Tensor:
        attention = (self.W_a(x) / x.shape[1] ** 0.5).softmax(dim=2)
        return self.W_v(x) @ attention.transpose(1, 2)


class RecurrentTokenizer(nn.Module):
    def __init__(self, channels: int, token_channels: int):
        super().__init__()
        self.W_tr = conv1d(token_channels, channels)
        self.W_v = conv1d(channels, token_channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        attention = (self.W_tr(tokens).transpose(1, 2) @ x / x.shape[1] ** 0.5).softmax(dim=2)
        return self.W_v(x) @ attention.transpose(1, 2)


class Transformer(nn.Module):
    def __init__(self, token_channels: int):
        super().__init__()
        self.key_proj = conv1d(token_channels, token_channels // 2)
        self.query_proj = conv1d(token_channels, token_channels // 2)
        self.value_proj = conv1d(token_channels, token_channels)
        self.f1 = conv1d(token_channels, token_channels)
        self.f2 = conv1d(token_channels, token_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        keys, queries = self.key_proj(tokens), self.query_proj(tokens)
        weights = (keys.transpose(1, 2) @ queries / keys.shape[1] ** 0.5).softmax(dim=1)
        tokens = tokens + self.value_proj(tokens) @ weights
        return tokens + self.f2(F.relu(self.f1(tokens)))


class Projector(nn.Module):
    def __init__(self, channels: int, token_channels: int):
        super().__init__()
        self.W_q = conv1d(channels, channels)
        self.W_k = conv1d(token_channels, channels)
        self.W_v = conv1d(token_channels, channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        weights = (self.W_q(x).transpose(1, 2) @ self.W_k(tokens) / x.shape[1] ** 0.5).softmax(dim=2)
        return x + self.W_v(tokens) @ weights.transpose(1, 2)


class Vt1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = FilterTokenizer(256, 16, 1024)
        self.transformer = Transformer(1024)
        self.projector = Projector(256, 1024)


class Vt2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = RecurrentTokenizer(256, 1024)
        self.transformer = Transformer(1024)


class VTResNet18(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.backbone = four_stages()
        self.vt1, self.vt2 = Vt1(), Vt2()
        self.classification_head = Head(1024, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.backbone(images).flatten(2)
        tokens = self.vt1.transformer(self.vt1.tokenizer(x))
        x = self.vt1.projector(x, tokens)
        tokens = self.vt2.transformer(self.vt2.tokenizer(x, tokens))
        return self.classification_head.fc(tokens.mean(dim=2))


class FiveStages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        c_in = 64
        for k, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=2):
            first = bottleneck(c_in, width, 1 if k == 2 else 2)
            others = [bottleneck(4 * width, width) for _ in range(blocks - 1)]
            self.add_module(f"conv{k}", nn.Sequential(first, *others))
            c_in = 4 * width

    def forward(self, images: Tensor) -> list[Tensor]:
        c2 = self.conv2(self.conv1(images))
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return [c2, c3, c4, self.conv5(c4)]


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def stage(c_in: int, bias: bool) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, 128, 3, padding=1, bias=bias), nn.GroupNorm(32, 128), nn.ReLU(), Doubling())


class Branch(nn.Module):
    def __init__(self, channels: tuple[int, ...], classes: int, bias: bool):
        super().__init__()
        self.u2 = nn.Conv2d(channels[0], 128, 3, padding=1)
        self.u3 = stage(channels[1], bias)
        self.u4 = nn.Sequential(stage(channels[2], bias), stage(128, bias))
        self.u5 = nn.Sequential(stage(channels[3], bias), stage(128, bias), stage(128, bias))
        self.final_conv = nn.Conv2d(128, classes, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        p2, p3, p4, p5 = levels
        logits = self.final_conv(self.u2(p2) + self.u3(p3) + self.u4(p4) + self.u5(p5))
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)


class PanopticFPN(nn.Module):
    def __init__(self, classes: int, branch_bias: bool = True):
        super().__init__()
        self.backbone = FiveStages()
        for k, channels in enumerate(CHANNELS, start=2):
            self.add_module(f"skip_con_conv{k}", nn.Conv2d(channels, 256, 1))
        self.ss_branch = Branch((256, 256, 256, 256), classes, branch_bias)

    def forward(self, images: Tensor) -> Tensor:
        levels = [getattr(self, f"skip_con_conv{k}")(c) for k, c in enumerate(self.backbone(images), start=2)]
        for fine in (2, 1, 0):
            levels[fine] = levels[fine] + F.interpolate(levels[fine + 1], scale_factor=2, mode="nearest")
        return self.ss_branch(levels)


class VTFPN(nn.Module):
    def __init__(self, classes: int, branch_bias: bool = True):
        super().__init__()
        self.backbone = FiveStages()
        for k, channels in enumerate(CHANNELS, start=2):
            self.add_module(f"tokenizer{k}", FilterTokenizer(channels, 8, 1024))
            self.add_module(f"projector{k}", Projector(channels, 1024))
        self.transformer = Transformer(1024)
        self.ss_branch = Branch(CHANNELS, classes, branch_bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        pixels = [c.flatten(2) for c in maps]
        tokens = [getattr(self, f"tokenizer{k}")(x) for k, x in enumerate(pixels, start=2)]
        mixed = self.transformer(torch.cat(tokens, dim=2)).split(8, dim=2)
        levels = [getattr(self, f"projector{k}")(x, t) for k, (x, t) in enumerate(zip(pixels, mixed, strict=True), 2)]
        return self.ss_branch([level.unflatten(2, c.shape[2:]) for level, c in zip(levels, maps, strict=True)])


NETS = {"resnet18": ResNet18, "vt_resnet18": VTResNet18, "panoptic_fpn": PanopticFPN, "vt_fpn": VTFPN}


def build(name: str, **changes: object) -> nn.Module:
    """A network in evaluation mode, of 10 classes if nothing else is asked for, all of its numbers random."""
    model = NETS[name](**{"classes": 10} | changes)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            spread = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.3
            nn.init.normal_(parameter, 0 if parameter.ndim > 1 else 0.5, spread)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            module.num_batches_tracked.fill_(7)
    return model.eval()
