"""The paper in code, 4: the auxiliary classifier, trained for a minute with and without it (section 4, Figure 8)."""

# %% [markdown]
# # 4. The auxiliary classifier
#
# A second, small classifier looks at the 17x17 grid during training. Section 4 finds that it does not speed up the
# beginning, as was thought, but helps near the end: it acts as a regularizer. Its loss counts 0.3 in the recipe of
# the paper. A call of the network returns the logits alone; `outputs` has both.

# %%
import matplotlib.pyplot as plt
import torch

import reinception as ri

network = ri.create("inception_v3", num_classes=3, width=0.1, input_size=96, aux="adaptive")
outputs = network.outputs(torch.zeros(2, 3, 96, 96))
assert outputs.auxiliary is not None  # the network has the classifier, and it is in training mode
print("logits", tuple(outputs.logits.shape), "auxiliary", tuple(outputs.auxiliary.shape))
for with_aux in (True, False):
    print(f"with auxiliary classifier {with_aux}: {ri.cost.parameters(network.arch, with_aux=with_aux):,} parameters")

# %% [markdown]
# ## A task that is drawn
#
# Discs, squares and crosses at random places on noise: enough to see both losses fall, small enough for a processor.


# %%
def draw(num: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(num, 3, 96, 96) images from -1 to 1 and their classes: 0 disc, 1 square, 2 cross."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (num,), generator=generator)
    images = 0.5 * torch.randn(num, 3, 96, 96, generator=generator)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    for number, label in enumerate(labels):
        cy, cx = 24 + 48 * torch.rand(2, generator=generator)
        dy, dx, r = (y - cy).abs(), (x - cx).abs(), 20
        square = (dy < r) & (dx < r)
        shape = {0: dy**2 + dx**2 < r**2, 1: square, 2: square & ((dy < 6) | (dx < 6))}[int(label)]
        images[number] += shape * torch.rand(3, 1, 1, generator=generator).add(0.5)
    return images.clamp(-1, 1), labels


images, labels = draw(6, seed=1)
figure, axes = plt.subplots(1, 6, figsize=(9, 1.9), layout="constrained")
for place, image, label in zip(axes, images, labels, strict=True):
    place.imshow((image.permute(1, 2, 0) + 1) / 2)
    place.set_title(("disc", "square", "cross")[int(label)], fontsize=9)
    place.axis("off")
figure.suptitle("Six training images")
plt.show()


# %% [markdown]
# ## Training, written out
#
# The loss is that of the main classifier plus 0.3 of the auxiliary one's, both with label smoothing.


# %%
def train(weight: float, num_steps: int = 30) -> list[tuple[float, float]]:
    """(main loss, auxiliary loss) of each step; the auxiliary loss counts `weight`."""
    torch.manual_seed(0)
    network = ri.create("inception_v3", num_classes=3, width=0.1, input_size=96, aux="adaptive").train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for step in range(num_steps):
        images, labels = draw(24, seed=step)
        outputs = network.outputs(images)
        main = ri.smoothed_cross_entropy(outputs.logits, labels, 0.1)
        assert outputs.auxiliary is not None
        auxiliary = ri.smoothed_cross_entropy(outputs.auxiliary, labels, 0.1)
        optimizer.zero_grad()
        (main + weight * auxiliary).backward()
        optimizer.step()
        losses.append((main.item(), auxiliary.item()))
    return losses


curves = {weight: train(weight) for weight in (0.3, 0.0)}
for weight, losses in curves.items():
    last = losses[-5:]
    print(f"weight {weight}: main loss {sum(m for m, _ in last) / 5:.3f}, auxiliary {sum(a for _, a in last) / 5:.3f}")

# %%
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for weight, colour in ((0.3, "#1f5fa8"), (0.0, "#e07b39")):
    axes.plot([main for main, _ in curves[weight]], color=colour, label=f"main, auxiliary weight {weight}")
axes.plot([aux for _, aux in curves[0.3]], color="#1f5fa8", linestyle=":", label="auxiliary, weight 0.3")
axes.set_xlabel("step")
axes.set_ylabel("smoothed cross-entropy")
axes.set_title("Training losses with and without the auxiliary classifier")
axes.legend()
plt.show()

# %% [markdown]
# Thirty steps show the machinery, not the paper's effect, which appears at the end of a long training. `reinception
# ablate` measures it on your images with equal budgets, several seeds and error bars;
# `family.EXPERIMENTS["auxiliary"]` are the networks of that comparison.
