"""The exact loss, synchronised batch norm and LARS in a plain loop of one's own: python examples/plain_loop.py

The same under torchrun --nproc-per-node 2: each rank takes its part of the global batch, DDP averages the gradients.
"""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pretrain.losses import ntxent_loss
from pretrain.models import convert_sync_batch_norm
from pretrain.optim import LARS

BATCH = 64  # images of a step, of all ranks together

rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
if ranks > 1:
    dist.init_process_group("gloo")
torch.manual_seed(0)
model: nn.Module = nn.Sequential(
    nn.Flatten(), nn.Linear(3 * 8 * 8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32)
)
model = convert_sync_batch_norm(model)
if ranks > 1:
    model = DistributedDataParallel(model)
optimizer = LARS(model.parameters(), lr=1.0, weight_decay=1e-6)
images = torch.rand(512, 3, 8, 8)
for step in range(20):
    batch = images[torch.randperm(512)[:BATCH]].chunk(ranks)[rank]  # every rank draws the same order, takes its part
    noise = torch.randn(2, BATCH, 3, 8, 8).chunk(ranks, dim=1)[rank]
    view_a, view_b = batch + 0.1 * noise[0], batch + 0.1 * noise[1]
    z_a, z_b = model(torch.cat([view_a, view_b])).chunk(2)  # one forward: batch norm sees both views
    loss = ntxent_loss(z_a, z_b, temperature=0.5)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if rank == 0 and step % 5 == 4:
        print(f"step {step + 1}: loss {loss.item():.4f}")
if ranks > 1:
    dist.destroy_process_group()
