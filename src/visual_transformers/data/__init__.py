"""Data sets: each is a dataclass whose fields are its configuration keys."""

from visual_transformers.data.coco_stuff import CocoStuff
from visual_transformers.data.digits import Digits, DigitScenes
from visual_transformers.data.image_folder import ImageFolder
from visual_transformers.data.imagenet import ImageNet
from visual_transformers.data.imagenette import Imagenette
from visual_transformers.data.masks import MaskFolder
from visual_transformers.data.oxford_pet import OxfordPet

__all__ = [
    "CocoStuff",
    "DigitScenes",
    "Digits",
    "ImageFolder",
    "ImageNet",
    "Imagenette",
    "MaskFolder",
    "OxfordPet",
]
