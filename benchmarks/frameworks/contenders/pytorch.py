"""PyTorch: a Sequential, a DataLoader and the training loop of its tutorials."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

LAYERS = {
    "v1": lambda: [nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)],
    "v2": lambda: [
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(32 * 13 * 13, 10),
    ],
    "v3": lambda: [
        nn.Conv2d(1, 32, 4),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(64 * 11 * 11, 248),
        nn.ReLU(),
        nn.Linear(248, 124),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(124, 10),
    ],
}


def initialize(module: nn.Module) -> None:
    """Set the weights of a layer as Keras does."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def pixels(images: Any) -> torch.Tensor:
    return torch.from_numpy(images).unsqueeze(1).float() / 255


def train(version: str, images: Any, labels: Any, epochs: int, seed: int, end_epoch: Any) -> Any:
    torch.manual_seed(seed)
    model = nn.Sequential(*LAYERS[version]()).apply(initialize)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, eps=1e-7, fused=True)
    loss = nn.CrossEntropyLoss()
    dataset = TensorDataset(pixels(images), torch.from_numpy(labels).long())
    # Batches are gathered as a whole, which is faster than one image after another.
    batches = BatchSampler(RandomSampler(dataset), 128, drop_last=False)
    loader = DataLoader(dataset, sampler=batches, batch_size=None)
    for _ in range(epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
        end_epoch()
    model.eval()

    @torch.inference_mode()
    def predict(images: Any) -> Any:
        parts = [model(part).softmax(1) for part in pixels(images).split(512)]
        return torch.cat(parts).numpy()

    return predict
