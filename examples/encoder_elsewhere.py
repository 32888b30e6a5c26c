"""An encoder of a run in plain torchvision and timm: python examples/encoder_elsewhere.py RUN_DIR [--timm]

The run's ResNet has to be one that they have: width 1, the ImageNet stem.
"""

import sys

import torch
import torchvision

from pretrain import load_encoder

ARCHITECTURE = "resnet18"  # what the run trained
run = sys.argv[1]
encoder = load_encoder(run)  # in eval mode; images (N, 3, S, S) in [0, 1] to features (N, D)
images = torch.rand(4, 3, 64, 64)

network = torchvision.models.get_model(ARCHITECTURE, weights=None)
network.fc = torch.nn.Identity()
network.load_state_dict(encoder.state_dict())
with torch.no_grad():
    print("torchvision:", torch.allclose(network.eval()(images), encoder(images), atol=1e-5))

if "--timm" in sys.argv:
    import timm

    network = timm.create_model(ARCHITECTURE, num_classes=0)
    network.load_state_dict(encoder.state_dict())  # timm's ResNets have torchvision's names
    with torch.no_grad():
        print("timm:", torch.allclose(network.eval()(images), encoder(images), atol=1e-5))
