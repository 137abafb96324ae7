"""The paper in code, 3: label smoothing, its equations, its gradient, and what it does to confidence (section 7)."""

# %% [markdown]
# # 3. Label smoothing
#
# Cross-entropy with a hard label wants the logit of the true class to be larger than all others without end. Section
# 7 replaces the label $q(k) = \delta_{k,y}$ by
#
# $$q'(k) = (1 - \epsilon)\,\delta_{k,y} + \epsilon\,u(k)$$
#
# with a prior $u$, uniform in the paper: $u(k) = 1/K$, $\epsilon = 0.1$, $K = 1000$. Then
#
# $$H(q', p) = (1 - \epsilon)\,H(q, p) + \epsilon\,H(u, p)$$
#
# and the gradient for a logit is $\partial \ell / \partial z_k = p(k) - q'(k)$.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy, log_softmax

import reinception as ri

torch.manual_seed(0)
logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
target = torch.tensor([0, 3, 3, 1])
epsilon = 0.1
loss = ri.smoothed_cross_entropy(logits, target, epsilon)
by_equation = (1 - epsilon) * cross_entropy(logits, target) - epsilon * log_softmax(logits, dim=1).mean()
print(f"smoothed_cross_entropy {loss.item():.12f}   by the equation {by_equation.item():.12f}")
assert torch.allclose(loss, by_equation)

# %% [markdown]
# The gradient is $p - q'$, divided by the number of rows, since the loss is a mean:

# %%
(gradient,) = torch.autograd.grad(loss, logits)
smoothed = (1 - epsilon) * torch.nn.functional.one_hot(target, 5) + epsilon / 5
expected = (logits.softmax(dim=1) - smoothed) / len(target)
print(f"largest difference {(gradient - expected).abs().max().item():.1e}")
assert torch.allclose(gradient, expected)

# %% [markdown]
# ## Where the loss is smallest
#
# With two logits, true class first, the hard loss falls for ever. The smoothed one has a minimum where the
# probability is $q'$, at a finite gap between the logits: $\log\frac{1 - \epsilon/2}{\epsilon/2}$.

# %%
gaps = torch.linspace(-2, 12, 200)
rows = torch.stack([gaps, torch.zeros_like(gaps)], dim=1)
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for amount, colour in ((0.0, "#1f5fa8"), (0.1, "#e07b39"), (0.3, "#3a8f5c")):
    losses = [ri.smoothed_cross_entropy(row[None], torch.tensor([0]), amount).item() for row in rows]
    axes.plot(gaps, losses, color=colour, label=f"epsilon {amount}")
    if amount:
        best = math.log((1 - amount / 2) / (amount / 2))
        axes.axvline(best, color=colour, linestyle=":")
        print(f"epsilon {amount}: the best gap is {best:.3f}; found on the curve {gaps[losses.index(min(losses))]:.3f}")
axes.set_xlabel("logit of the true class minus that of the other")
axes.set_ylabel("loss")
axes.set_title("Label smoothing gives the loss a minimum")
axes.legend()
plt.show()

# %% [markdown]
# ## Another prior
#
# $u$ may be any distribution, for example how frequent each class is:

# %%
prior = torch.tensor([0.7, 0.1, 0.1, 0.05, 0.05], dtype=torch.float64)
print(f"with the prior {ri.smoothed_cross_entropy(logits, target, epsilon, prior=prior).item():.4f}")
print(f"uniform        {loss.item():.4f}")

# %% [markdown]
# **Where it is used:** every recipe names its epsilon (`reinception recipe show paper_2015`), and the loss of the
# auxiliary classifier is smoothed the same way.
