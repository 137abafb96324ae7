"""The paper in code, 1: its four principles, and convolutions replaced by smaller ones."""

# %% [markdown]
# # 1. Principles and factorizations
#
# Section 2 of *Rethinking the Inception Architecture* gives four principles, section 3 replaces large convolutions by
# smaller ones. Here the network is a value (`reinception.family.INCEPTION_V3`), so both can be computed: nothing on
# this page needs torch.

# %%
import matplotlib.pyplot as plt

from reinception import family, spec
from reinception.family import figures
from reinception.spec import Arch, cost

NETWORK = family.INCEPTION_V3
print(f"{NETWORK.name}: {cost.parameters(NETWORK, with_aux=False):,} parameters")
print(f"{cost.multiply_adds(NETWORK) / 1e9:.3f} billion multiply-adds for an image of {NETWORK.input_size} pixels")

# %% [markdown]
# ## Principle 1: no bottleneck
#
# The representation should shrink gently from the image to the classifier. `cost.cuts` gives every place where the
# network can be cut; the numbers that cross the cut are the size of the representation there.

# %%
cuts = cost.cuts(NETWORK)
sizes = [cut.shape.height * cut.shape.width * cut.shape.channels for cut in cuts]
figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
axes.semilogy(range(len(cuts)), sizes, marker="o", color="#1f5fa8")
axes.set_xticks(range(len(cuts)), [cut.path for cut in cuts], rotation=60, ha="right", fontsize=8)
axes.set_ylabel("numbers for one image")
axes.set_title("Size of the representation at every cut of Inception-v3")
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# No cut is much narrower than those around it. Principle 2 shows in the same list: the coarsest grid has the most
# channels. Principle 3, that channels may be reduced before neighbours are added up, is the 1x1 in front of every
# large convolution.

# %%
for cut in cuts[-11:]:
    seen = cut.receptive_field[0]
    print(
        f"{cut.path:<10} {cut.shape.height:>3} x {cut.shape.width:<3} x {cut.shape.channels:<5} sees {seen:>4} pixels"
    )

# %% [markdown]
# ## A 5x5 as two 3x3 (Figure 5)
#
# Two 3x3 convolutions see what one 5x5 sees, and cost $(9 + 9) / 25 = 72\,\%$ of it: 28 % are saved. The function
# below puts layers alone on a grid of 35x35 with 64 channels and counts.


# %%
def multiply_adds_of(*layers: spec.Conv, channels: int = 64, grid: int = 35) -> int:
    """What the layers cost on a grid with so many channels, without the first layer, which only makes that grid."""
    first = figures.conv(channels)
    network = Arch(name="layers", input_size=grid, num_classes=2, stages=(("grid", figures.chain(first, *layers)),))
    rows = [row for row in cost.rows(network, with_aux=False) if row.kind == "conv"]
    return sum(row.multiply_adds for row in rows[1:])


single = multiply_adds_of(figures.conv(64, 5))
double = multiply_adds_of(figures.conv(64, 3), figures.conv(64, 3))
print(f"5x5: {single:,}   two 3x3: {double:,}   saved: {1 - double / single:.0%}")

# %% [markdown]
# ## n x n as 1 x n and n x 1 (Figure 6)
#
# A 1x7 and a 7x1 together see a 7x7. The cost falls from $n^2$ to $2n$, so the gain grows with $n$:

# %%
sizes = [3, 5, 7, 9]
ratios = []
for size in sizes:
    square = multiply_adds_of(figures.conv(64, size), grid=17)
    pair = multiply_adds_of(figures.conv(64, (1, size)), figures.conv(64, (size, 1)), grid=17)
    ratios.append(pair / square)
    print(f"{size} x {size}: {square:>12,}   1 x {size} and {size} x 1: {pair:>12,}   {pair / square:.0%}")
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.bar([f"{size}x{size}" for size in sizes], [100 * ratio for ratio in ratios], color="#e07b39")
axes.axhline(100, color="black", linewidth=0.8)
axes.set_ylabel("percent of the square convolution")
axes.set_title("Cost of 1xn and nx1 beside nxn")
plt.show()

# %% [markdown]
# The paper's experiments on these choices are networks, too, each a value that differs in one thing:

# %%
for name in ("figure_2", "section_3_2", "factorization_place"):
    for variant, arch in family.EXPERIMENTS[name].items():
        print(f"{name:<20} {variant:<10} {cost.multiply_adds(arch) / 1e9:.3f} G")

# %% [markdown]
# **Try it:** `reinception draw inception_v3 --at grid17.0 -o module.svg` draws the asymmetric module, and
# `reinception show figure_2_linear` prints a variant layer by layer.
