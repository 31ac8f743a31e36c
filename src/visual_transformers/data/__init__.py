"""Data sets: each is a dataclass whose fields are its configuration keys."""

from visual_transformers.data.classification.image_folder import ImageFolder
from visual_transformers.data.classification.imagenet import ImageNet
from visual_transformers.data.classification.imagenette import Imagenette
from visual_transformers.data.classification.oxford_pet import OxfordPet
from visual_transformers.data.digits import Digits, DigitScenes
from visual_transformers.data.segmentation.coco.coco_stuff import CocoStuff
from visual_transformers.data.segmentation.lip import Lip
from visual_transformers.data.segmentation.mask_folder import MaskFolder
from visual_transformers.data.segmentation.voc import Voc

__all__ = [
    "CocoStuff",
    "DigitScenes",
    "Digits",
    "ImageFolder",
    "ImageNet",
    "Imagenette",
    "Lip",
    "MaskFolder",
    "OxfordPet",
    "Voc",
]
