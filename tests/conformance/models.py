"""The models that conformance is tried on: others' hybrids and ViTs, cut short, with weights as if trained.

`tests.conformance.models:NAME` is a factory for each name in MODELS, as a user would write it.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bigvit_edge.models.torchvision_ops import define_torchvision_ops
from tests.conformance.weights import pretend_training

SEED = 0
BLOCKS = 2  # of one shape in a row, all that is kept
TIMM = """
    vit_tiny_patch16_224 deit3_small_patch16_224 deit_tiny_distilled_patch16_224 vit_medium_patch16_reg4_gap_256
    vit_relpos_small_patch16_224 vit_small_resnet26d_224 samvit_base_patch16_224 beit_base_patch16_224
    eva02_tiny_patch14_224 cait_xxs24_224 xcit_nano_12_p16_224 volo_d1_224 crossvit_tiny_240 convit_tiny
    tnt_s_patch16_224 pit_ti_224 levit_128s swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 twins_svt_small
    twins_pcpvt_small pvt_v2_b0 nest_tiny_jx focalnet_tiny_srf davit_tiny mvitv2_tiny hiera_tiny_224 gcvit_xxtiny
    coat_lite_tiny vitamin_small_224 efficientformer_l1 efficientformerv2_s0 mobilevit_xxs mobilevitv2_050
    maxvit_rmlp_pico_rw_256 coatnet_nano_rw_224 nextvit_small tiny_vit_5m_224 edgenext_xx_small fastvit_t8
    repvit_m0_9 efficientvit_b0 efficientvit_m0 mobilenetv4_hybrid_medium mobilenetv4_conv_small convnext_atto
    convnextv2_atto poolformer_s12 poolformerv2_s12 caformer_s18 inception_next_atto mambaout_femto shvit_s1
    swiftformer_xs starnet_s1 fasternet_t0 ghostnet_100 mobilenetv3_small_100 efficientnet_b0 mobileone_s0
    hgnetv2_b0 botnet26t_256 halonet26t visformer_tiny resmlp_12_224 mixer_s32_224 gmlp_ti16_224
""".split()  # noqa: SIM905  sixty lines otherwise
TORCHVISION = ("vit", "swin_t", "swin_v2_t", "maxvit_t", "mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_y_400mf")
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {  # -> what its configuration is called, and how it is cut short
    "hf_vit": ("ViT", dict(num_hidden_layers=2, hidden_size=192, num_attention_heads=3, intermediate_size=768)),
    "hf_deit": ("DeiT", dict(num_hidden_layers=2, hidden_size=192, num_attention_heads=3, intermediate_size=768)),
    "hf_dinov2": ("Dinov2", dict(num_hidden_layers=2, hidden_size=192, num_attention_heads=3, image_size=224)),
    "hf_swin": ("Swin", dict(depths=[2, 2], num_heads=[3, 6], embed_dim=48)),
    "hf_segformer": ("Segformer", dict(depths=[1, 1, 1, 1])),
    "hf_pvt_v2": ("PvtV2", dict(depths=[1, 1, 1, 1])),
    "hf_mobilevit": ("MobileViT", dict(hidden_sizes=[64, 80, 96], neck_hidden_sizes=[16, 16, 24, 48, 64, 80, 320])),
    "hf_convnext": ("ConvNext", dict(depths=[1, 1, 2, 1], hidden_sizes=[40, 80, 160, 320])),
}


class Logits(nn.Module):
    """A transformers model as one that answers with its logits: [B, 3, S, S] -> [B, classes]."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        super().__init__()
        self.model, self.image_size = model, image_size

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image).logits


def make_timm(name: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name)
    model.image_size = model.pretrained_cfg["input_size"][-1]
    return model


def make_torchvision(name: str) -> nn.Module:
    from torchvision import models

    if name == "vit":
        model: nn.Module = models.VisionTransformer(224, 16, 2, 3, 192, 768)
    else:
        model = models.get_model(name)
    model.image_size = 224
    return model


def make_transformers(name: str) -> nn.Module:
    import transformers

    kind, changes = TRANSFORMERS[name]
    config = getattr(transformers, f"{kind}Config")(**changes, num_labels=1000)
    model = getattr(transformers, f"{kind}ForImageClassification")(config)
    size = getattr(config, "image_size", 224)
    return Logits(model, size if isinstance(size, int) else size[0])


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{name: functools.partial(make_timm, name) for name in TIMM},
    **{f"tv_{name}": functools.partial(make_torchvision, name) for name in TORCHVISION},
    **{name: functools.partial(make_transformers, name) for name in TRANSFORMERS},
}


def build(name: str) -> nn.Module:
    """The model of that name: seeded, cut short where that leaves it running, with weights as if trained."""
    define_torchvision_ops()
    torch.manual_seed(SEED)
    model = MODELS[name]().eval()
    image = torch.randn(1, 3, model.image_size, model.image_size)
    if cut_short(model):
        try:
            with torch.no_grad():
                model(image)
        except Exception:  # it counts its blocks
            torch.manual_seed(SEED)
            model = MODELS[name]().eval()
    model.mean, model.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pretend_training(model, model.image_size)
    return model


def cut_short(model: nn.Module) -> int:
    """Drop the third of equal blocks in a row, and all after it. How many were dropped."""
    dropped = 0
    for module in list(model.modules()):
        if not isinstance(module, nn.Sequential | nn.ModuleList):
            continue
        before, run = None, 0
        for name, block in list(module.named_children()):
            shapes = (type(block), [(key, tensor.shape) for key, tensor in block.state_dict().items()])
            run = run + 1 if shapes == before and shapes[1] else 0
            before = shapes
            if run >= BLOCKS:
                delattr(module, name)
                dropped += 1
        if isinstance(module, nn.ModuleList):
            module._modules = {str(i): block for i, block in enumerate(module._modules.values())}
    return dropped


def __getattr__(name: str) -> Callable[[], nn.Module]:
    if name in MODELS:
        return functools.partial(build, name)
    raise AttributeError(name)
