"""The options of the ``layerpeel`` commands, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from layerpeel.reports.finding import Severity

Text = str | None

Model = Annotated[
    Text,
    Argument(help="module:name, path/to/file.py:name, or a Hugging Face folder."),
]
Weights = Annotated[
    Text, Option(help="Weights of MODEL: .safetensors, .pt, .pth or .bin.")
]
Data = Annotated[
    Text,
    Option(help="Training data: module:name, file.py:name, .npz or .safetensors."),
]
EvalData = Annotated[Text, Option(help="Held-out data, given like --data.")]
Features = Annotated[
    Text, Option(help="Instead of MODEL: .npz or .safetensors of features and weight.")
]
Stats = Annotated[
    Path | None,
    Option(help="Instead of MODEL: statistics that `layerpeel measure` wrote."),
]
StatsOut = Annotated[
    Path | None,
    Option("--out", "-o", help="Write the statistics, a .safetensors file."),
]
StatsFiles = Annotated[
    list[Path], Argument(help="Statistics that `layerpeel measure` wrote.")
]
FirstStats = Annotated[Path, Argument(help="Statistics of the network before.")]
SecondStats = Annotated[Path, Argument(help="Statistics of the network after.")]
Names = Annotated[Text, Option(help="What the two are called, such as before,after.")]
Layers = Annotated[
    Text, Option(help="Profile the layers too: all, or paths between commas.")
]
Light = Annotated[
    bool, Option("--light", help="Leave out what takes d x d or K x K memory.")
]
Nc4 = Annotated[str, Option("--nc4", help="second_pass, one_pass or skip.")]
Clones = Annotated[
    bool,
    Option("--clones", help="Profile the clones of the last layer's input as well."),
]
Layer = Annotated[
    Text,
    Option(
        help="Path of the layer whose output is profiled.", show_default="head input"
    ),
]
Widths = Annotated[
    str, Option(help="Widths of chunks: dyadic, all, or numbers such as 8,16,32.")
]
Repeats = Annotated[int, Option(help="Chunks of each width.", min=1)]
Scope = Annotated[
    Text,
    Option(
        help="Neurons that chunks are judged by: complement, or all as with --paper."
    ),
]
Paper = Annotated[
    bool, Option("--paper", help="Definitions of Doimo et al. (2021) to the letter.")
]
NoUntrained = Annotated[
    bool, Option("--no-untrained", help="No untrained copy of the network beside it.")
]
Maps = Annotated[
    Text,
    Option(
        help="Neurons of maps and tokens: pooled or flattened.", show_default="pooled"
    ),
]
Keep = Annotated[
    int | None, Option(help="Keep so many neurons, and fold in the others.", min=1)
]
Tolerance = Annotated[
    float | None,
    Option(help="Or as few as change the output by so much, relative to its spread."),
]
Select = Annotated[
    Text, Option(help="How to select them: pivoted or random.", show_default="pivoted")
]
KeptOut = Annotated[
    Path | None,
    Option("--kept", help="Write the neurons kept and new weights: .safetensors."),
]
Head = Annotated[Text, Option(help="Path of the last linear layer in the model.")]
NumClasses = Annotated[int | None, Option(help="Number of classes.")]
ClassNames = Annotated[Text, Option(help="Names of the classes, between commas.")]
Minority = Annotated[Text, Option(help="The rare classes, such as 5,6,7.")]
BatchSize = Annotated[int, Option(help="Batch size for data in array files.", min=1)]
Device = Annotated[Text, Option(help="Where to run it, such as cpu or cuda:0.")]
Seed = Annotated[int, Option(help="Seed of PyTorch's random numbers.")]
Out = Annotated[
    Path | None,
    Option("--out", "-o", help="Write the report, a .html or .json file."),
]
Directory = Annotated[Path, Option("--out", help="Directory to write to.")]
AsJson = Annotated[bool, Option("--json", help="Print the content as JSON.")]
FailOn = Annotated[
    Severity | None, Option(help="Exit with 1 for a finding at least this severe.")
]
Code = Annotated[str, Argument(help="A code, such as LP001.")]
Counts = Annotated[
    str,
    Option(help="Samples per class: 5000x5,50x5, or exp:1280:5:100 for a long tail."),
]
Energies = Annotated[
    Text, Option("--energy", help="The energies E_W,E_H, such as 1,5.")
]
WeightDecay = Annotated[
    Text,
    Option(help="Instead: decay of each layer, last first, and of the features."),
]
Per = Annotated[
    Text,
    Option(
        help="What shares the features' energy or decay: class or sample.",
        show_default="class for energies, sample for decay",
    ),
]
Loss = Annotated[str, Option(help="cross_entropy or mse.")]
Smoothing = Annotated[float, Option(help="Label smoothing of the cross-entropy.")]
Bias = Annotated[str, Option(help="none, free, or the ridge penalty of the bias.")]
Sign = Annotated[
    str, Option("--features", help="free, or nonnegative for features behind a ReLU.")
]
Width = Annotated[int | None, Option(help="Dimension of the features.", min=1)]
Method = Annotated[
    str, Option(help="auto, closed_form, grouped, spectral or factored.")
]
PhaseDiagram = Annotated[
    Path | None,
    Option(help="Draw minority cosines over imbalance and energy: .svg, .png or .pdf."),
]
Quiet = Annotated[bool, Option("--quiet", help="No progress, no table, no remarks.")]
Debug = Annotated[bool, Option("--debug", help="Show the traceback of an error.")]
Version = Annotated[bool, Option("--version", help="Show the version.", is_eager=True)]
