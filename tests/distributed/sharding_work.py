"""What is sharded of a network, and the same pass through it whole and sharded."""

import copy

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

from supreme.models.build import NetworkSpec, build
from supreme.sharding import shard

SIZES = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
LIKE_A_VIT = {"model_type": "vit", "image_size": 8, "patch_size": 4, **SIZES}
VIT = {"pretrained": False, "image_size": 8, "patch_size": 4, "hidden_size": 8, "layers": 3, "heads": 2}
NETWORKS = {
    "ViT": lambda: build(NetworkSpec("ViT", VIT), 3, 0),
    "HuggingFace": lambda: build(NetworkSpec("HuggingFace", {"pretrained": False, "config": LIKE_A_VIT}), 3, 0),
    "ResNet18": lambda: build(NetworkSpec("ResNet18", {"width": 8}), 3, 0).eval(),
    "shared": lambda: Shared(),
}


class Shared(nn.Module):
    """Three blocks, of which the first two share a weight, and so belong to the unit that holds both."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            blocks = [nn.Sequential(nn.Linear(192, 192), nn.ReLU()) for _ in range(3)]
            blocks[1][0].weight = blocks[0][0].weight
            self.body = nn.Sequential(nn.Flatten(), Chain(blocks))
            self.head = nn.Linear(192, 3)

    def forward(self, images):
        return self.head(self.body(images))


class Chain(nn.Module):
    """Blocks in a list, one after another."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, values):
        for block in self.blocks:
            values = block(values)
        return values


def passes():
    """By network: names of what is sharded, and the gradients of a pass, whole and sharded."""
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = {}
    for name, make in NETWORKS.items():
        whole = make().double()
        split = copy.deepcopy(whole)
        shard(split, mesh)
        units = [place for place, module in split.named_modules() if isinstance(module, FSDPModule)]
        found[name] = units, gradients(whole, images), gradients(split, images)
    return found


def gradients(network, images):
    network(images).square().sum().backward()
    values = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {name: v.full_tensor() if hasattr(v, "full_tensor") else v for name, v in values.items()}
