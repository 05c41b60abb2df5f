"""ResNet-50 (He et al. 2015, arXiv 1512.03385) as torchvision has it, with the stem for large or for small images."""

from torch import nn
from torchvision.models import resnet50

from lib.task import with_stem


def network(classes: int, stem: str) -> nn.Module:
    """(B, 3, H, W) -> (B, classes).

    stem: "imagenet" is torchvision's own (the stride of a block in its 3x3 convolution), whose state_dict loads here:
    25,557,032 parameters for 1,000 classes. "cifar" is a 3x3 convolution without stride and without pooling, for images
    of 32x32: 23,705,252 for 100 classes.
    """
    return with_stem(resnet50(num_classes=classes), stem)
