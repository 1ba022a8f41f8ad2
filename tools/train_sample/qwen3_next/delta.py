"""The gated delta rule in chunks, for training: within a chunk all positions at once, from chunk to chunk a state.

S_t = a_t S_{t-1} + k_t d_t';  d_t = b_t (v_t - a_t S_{t-1}' k_t);  y_t = S_t' q_t           (arXiv 2412.06464)

With g_t the sum of log a within the chunk, S the state before it and E_ts = exp(g_t - g_s), the d of a chunk solve
(I + L) d = b v - b exp(g) k' S, where L_ts = b_t E_ts k_t' k_s for s < t: one triangular system for all of them.
Shapes: B rows, T positions, H value heads, K and V widths, C positions a chunk, N = T/C chunks.
"""

import torch
from torch import Tensor

CHUNK = 32


def delta_rule(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """q, k [B,H,T,K], v [B,H,T,V], log_decay and beta [B,H,T] -> y [B,H,T,V]; the state begins at zero."""
    length, width = q.shape[2], v.shape[-1]
    q, k, v, beta = (_chunked(x, length) for x in (q, k, v, beta.unsqueeze(-1)))  # [B,H,N,C,.]
    g = _chunked(log_decay.unsqueeze(-1), length).squeeze(-1).cumsum(-1)  # [B,H,N,C]
    later = torch.ones(CHUNK, CHUNK, dtype=torch.bool).triu(1)
    between = (g.unsqueeze(-1) - g.unsqueeze(-2)).masked_fill(later, float("-inf")).exp()  # E [B,H,N,C,C], 0 above the diagonal
    since = g.exp().unsqueeze(-1)  # [B,H,N,C,1]
    system = (beta * k) @ k.mT * between  # I + L, once the diagonal is taken as 1
    wanted = torch.cat([beta * v, beta * since * k], -1)
    own, read = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True).split([width, k.shape[-1]], -1)
    within = q @ k.mT * between  # [B,H,N,C,C]
    asked, left = q * since, (k * (g[..., -1:] - g).exp().unsqueeze(-1)).mT  # [B,H,N,C,K], [B,H,N,K,C]
    return _scan(own, read, within, asked, left, since[..., -1:, :]).flatten(2, 3)[:, :, :length]


def _chunked(x: Tensor, length: int) -> Tensor:
    """[B,H,T,.] -> [B,H,N,C,.], the end filled with zeros: positions that write nothing."""
    return torch.nn.functional.pad(x, (0, 0, 0, -length % CHUNK)).unflatten(2, (-1, CHUNK))


def _scan(own: Tensor, read: Tensor, within: Tensor, asked: Tensor, left: Tensor, kept: Tensor) -> Tensor:
    """From chunk to chunk: y [B,H,N,C,V]."""
    state, found = None, []
    for own_n, read_n, within_n, asked_n, left_n, kept_n in zip(*(x.unbind(2) for x in (own, read, within, asked, left, kept)), strict=True):
        if state is None:
            d, y = own_n, within_n @ own_n
            state = left_n @ d
        else:
            d = own_n - read_n @ state  # [B,H,C,V]
            y = asked_n @ state + within_n @ d
            state = state * kept_n + left_n @ d  # [B,H,K,V]
        found.append(y)
    return torch.stack(found, 2)


def delta_rule_by_position(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """The same, position by position: what `delta_rule` must agree with."""
    state, found = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), []
    for t in range(q.shape[2]):
        state = state * log_decay[:, :, t, None, None].exp()
        seen = (state * k[:, :, t, :, None]).sum(-2)  # [B,H,V]
        d = (v[:, :, t] - seen) * beta[:, :, t, None]
        state = state + k[:, :, t, :, None] * d.unsqueeze(-2)
        found.append((state * q[:, :, t, :, None]).sum(-2))
    return torch.stack(found, 2)
