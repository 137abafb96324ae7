"""The paper in code, 2: a grid made smaller without a bottleneck and without waste (section 5, Figures 9 and 10)."""

# %% [markdown]
# # 2. Grid size reduction
#
# A network has to go from 35x35 to 17x17. Pooling first is cheap and throws information away (principle 1 again);
# expanding first keeps it and costs three times as much. Section 5 runs a convolution of stride 2 and a pooling of
# stride 2 side by side and joins them.

# %%
import matplotlib.pyplot as plt

from reinception import family
from reinception.spec import cost, trace

VARIANTS = family.EXPERIMENTS["figure_9"]
for name, arch in VARIANTS.items():
    stage = next(stage for stage in cost.stages(arch) if stage.name == "reduce35")
    print(f"{name:<13} reduce35: {stage.multiply_adds / 1e6:>7.1f} M multiply-adds, {stage.parameters:>9,} parameters")

# %% [markdown]
# `trace` gives the shape after every layer, branches included. Pooling first leaves 17x17x288 numbers before the
# convolution sees them; expanding first computes 35x35x768 of them; in Figure 10 three branches make the smaller grid
# at once.

# %%
for name, arch in VARIANTS.items():
    steps = [step for step in trace(arch) if step.path.startswith("reduce35")]
    shapes = [f"{step.output.height}x{step.output.width}x{step.output.channels}" for step in steps]
    print(f"{name:<13} {' '.join(dict.fromkeys(shapes))}")

# %%
costs = [next(s.multiply_adds for s in cost.stages(arch) if s.name == "reduce35") / 1e6 for arch in VARIANTS.values()]
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.bar(list(VARIANTS), costs, color=["#b8b8c0", "#b8b8c0", "#1f5fa8"])
axes.set_ylabel("million multiply-adds")
axes.set_title("What it costs to go from 35x35 to 17x17")
plt.show()

# %% [markdown]
# `figure_10` is what Inception-v3 uses at both reductions, and the shape it ends in is the next stage's input:

# %%
for cut in cost.cuts(family.INCEPTION_V3):
    if cut.path.startswith("reduce") or cut.path in ("grid35.2", "grid17.3"):
        print(f"{cut.path:<9} {cut.shape.height:>2} x {cut.shape.width:<2} x {cut.shape.channels}")

# %% [markdown]
# **Try it on your images:** `reinception ablate` trains such rows with equal budgets and seeds and prints error bars.
