"""LeNet-5 (LeCun et al. 1998) on 32x32 grey images, with BatchNorm after both convolutions: 61,750 parameters."""

from torch import nn


class LeNet5(nn.Sequential):
    """(B, 1, 32, 32) -> (B, classes). ReLU and max pooling in the place of the paper's tanh and
    subsampling; pooling comes first, which gives the same values for a quarter of the work."""

    def __init__(self, classes: int = 10, stem: str = "auto"):
        super().__init__(
            nn.Conv2d(1, 6, 5),
            nn.BatchNorm2d(6),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(6, 16, 5),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )
