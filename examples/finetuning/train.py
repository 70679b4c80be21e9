"""Fine-tunes a network that told odd digits from even ones: its body learns more slowly."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy


def load_data():
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    return (images[:1280], labels[:1280]), (images[1280:], labels[1280:])


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, classes)

    def forward(self, images):
        return self.head(self.body(images))


def pretrain(images, labels):
    """Stands for the weights that a model would be downloaded with."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Net(2)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(50):
            optimizer.zero_grad()
            cross_entropy(net(images), labels % 2).backward()
            optimizer.step()
    return net.body.state_dict()


@torch.no_grad()
def test(model, images, labels):
    return cross_entropy(model(images), labels).item()


def train(run):
    torch.manual_seed(run.seed)
    (images, labels), validation = load_data()
    model = Net(10)
    model.body.load_state_dict(pretrain(images, labels))
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    for step in run.steps():
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()
        if run.due():
            run.report(val_loss=test(model, *validation))
    return test(model, *validation)
