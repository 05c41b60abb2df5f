"""ResNet-18 (He et al. 2015, arXiv 1512.03385) as torchvision has it, with the stem for large or for small images."""

from torch import nn
from torchvision.models import resnet18

from lib.task import with_stem


def network(classes: int, stem: str) -> nn.Module:
    """(B, 3, H, W) -> (B, classes).

    stem: "imagenet" is torchvision's own, whose state_dict loads here: 11,689,512 parameters for 1,000 classes. "cifar"
    is a 3x3 convolution without stride and without pooling, for images of 32x32 (section 4.2 of the paper): 11,173,962
    for 10 classes.
    """
    return with_stem(resnet18(num_classes=classes), stem)
