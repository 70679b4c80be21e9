from __future__ import annotations

import pytest
import torch

from tuner.fused.lane_update import orthogonalize


@pytest.mark.parametrize("shape", [(1, 12), (12, 1), (1, 1), (5, 12), (12, 5)])
def test_every_lane_is_made_orthogonal_as_torchs_muon_does_it(shape: tuple[int, int]) -> None:
    lanes = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))

    ours = orthogonalize(lanes)

    for lane, matrix in zip(ours, lanes, strict=True):
        p = torch.zeros(shape, requires_grad=True)
        p.grad = matrix.clone()
        torch.optim.Muon([p], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False).step()
        longer = max(1.0, shape[0] / shape[1]) ** 0.5
        # Both round to bfloat16, which has eight bits.
        torch.testing.assert_close(lane, -p.detach() / longer, rtol=2**-6, atol=2**-8)
