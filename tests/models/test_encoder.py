from unittest import mock

import pytest
import torch
from torchvision.models import resnet

from pretrain.config import EncoderConfig
from pretrain.errors import ConfigError
from pretrain.models.config import read_encoder_config
from pretrain.models.encoder import build_encoder, join_views, to_float
from pretrain.models.heads import build_projector
from pretrain.objectives.config import ProjectorConfig

honest = torch.nn.functional.conv2d


@pytest.mark.parametrize("architecture", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_width_1_is_torchvisions_resnet(architecture: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(architecture=architecture)).eval()  # type: ignore[arg-type]
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # a zero gamma would hide the residual branches
            module.weight.data.uniform_(0.5, 1.5)
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
    reference = getattr(resnet, architecture)(num_classes=1).eval()
    missing, unexpected = reference.load_state_dict(encoder.state_dict(), strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"}
    assert not unexpected
    reference.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), reference(images), rtol=0, atol=0)


@pytest.mark.parametrize(("width", "features"), [(0.25, 128), (0.125, 64), (2, 1024), (0.01, 5)])
def test_width_scales_every_channel(width: float, features: int) -> None:
    config = EncoderConfig(architecture="resnet18", width=width, stem="small")
    encoder = build_encoder(config)
    assert encoder.feature_width == config.feature_width == features
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, features)
    assert (
        build_encoder(EncoderConfig(architecture="resnet50", width=width)).feature_width == 2048 * width or width < 0.1
    )


def test_small_stem_keeps_the_resolution_and_last_gammas_start_at_zero() -> None:
    encoder = build_encoder(EncoderConfig(architecture="resnet18", width=0.25, stem="small"))
    x = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(torch.rand(1, 3, 32, 32)))))
    assert x.shape[-2:] == (32, 32)
    assert all(block.bn2.weight.abs().max() == 0 for stage in (encoder.layer1, encoder.layer4) for block in stage)
    trained = build_encoder(EncoderConfig(architecture="resnet50", width=0.1, zero_init_last_gamma=False))
    assert trained.layer1[0].bn3.weight.min() == 1


@pytest.mark.parametrize("initialisation", ["torch", "he"])
def test_convnet4_is_four_convolutions_as_torch_or_he_draws_them(initialisation: str) -> None:
    given = {"architecture": "convnet4", "widths": [8, 24, 16, 40], "initialisation": initialisation}
    config = read_encoder_config(given, "test")
    torch.manual_seed(3)
    encoder = build_encoder(config)
    torch.manual_seed(3)
    plain = [
        torch.nn.Conv2d(i, o, 3, s, 1, bias=False) for i, o, s in ((3, 8, 2), (8, 24, 2), (24, 16, 2), (16, 40, 1))
    ]
    if initialisation == "he":
        for layer in plain:
            torch.nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    x = images = torch.rand(5, 3, 28, 28)
    for layer in plain:
        x = torch.relu(torch.nn.functional.batch_norm(layer(x), None, None, training=True))
    assert x.shape == (5, 40, 4, 4)
    torch.testing.assert_close(encoder(images), x.mean((2, 3)))
    assert encoder.feature_width == config.feature_width == 40
    with pytest.raises(ConfigError, match=r"encoder\.convnet4\.widths|encoder\.widths"):
        read_encoder_config({**given, "widths": [8, 8, 8]}, "test")


@pytest.mark.parametrize(("grey", "width"), [(False, 48), (True, 16)])
def test_pixels_are_the_images_themselves(grey: bool, width: int) -> None:
    config = read_encoder_config({"architecture": "pixels", "side_px": 4, "grey": grey}, "test")
    encoder = build_encoder(config)
    assert encoder.feature_width == config.feature_width == width
    images = torch.rand(5, 3, 4, 4)
    expected = images.mean(1) if grey else images
    torch.testing.assert_close(encoder(images), expected.flatten(1))
    torch.testing.assert_close(encoder(images.repeat_interleave(3, 2).repeat_interleave(3, 3)), expected.flatten(1))


def test_projector_is_simclrs() -> None:
    projector = build_projector(ProjectorConfig(layers=3, hidden_width=7, output_width=5), feature_width=6)
    assert [type(layer).__name__ for layer in projector] == [
        *("Linear", "BatchNorm1d", "ReLU"),
        *("Linear", "BatchNorm1d", "ReLU"),
        *("Linear", "BatchNorm1d"),
    ]
    assert projector[-1].bias is None, "the last batch norm has no beta"
    assert all(layer.bias is None for layer in projector if isinstance(layer, torch.nn.Linear))
    assert projector(torch.rand(4, 6)).shape == (4, 5)


def test_views_are_joined_view_after_view_and_scaled() -> None:
    views = torch.arange(2 * 2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 2, 3, 4, 4)
    images = to_float(join_views(views), channels_last=True)
    torch.testing.assert_close(images[1], views[1, 0] / 255)
    torch.testing.assert_close(images[2], views[0, 1] / 255)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_narrow_shortcuts_do_not_reach_the_convolution_that_damages_memory() -> None:
    """oneDNN's backward writes outside its memory: strided 1x1 convolution, fewer than 8 channels, channels_last."""
    torch.manual_seed(0)
    x = torch.rand(3, 4, 15, 14).contiguous(memory_format=torch.channels_last).requires_grad_()
    encoder = build_encoder(EncoderConfig(architecture="resnet18", width=0.0625))
    shortcut = encoder.layer2[0].downsample[0]  # type: ignore[index,union-attr]
    strides: list[object] = []
    with mock.patch.object(
        torch.nn.functional, "conv2d", lambda x, weight, stride=1: strides.append(stride) or honest(x, weight)
    ):
        y = shortcut(x)
    assert strides == [1]
    plain = x.detach().contiguous().requires_grad_()
    expected = honest(plain, shortcut.weight, stride=2)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, plain.grad)
