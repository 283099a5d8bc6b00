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
Head = Annotated[Text, Option(help="Path of the last linear layer in the model.")]
NumClasses = Annotated[int | None, Option(help="Number of classes.")]
ClassNames = Annotated[Text, Option(help="Names of the classes, between commas.")]
Minority = Annotated[Text, Option(help="The rare classes, such as 5,6,7.")]
BatchSize = Annotated[int, Option(help="Batch size for data in array files.", min=1)]
Device = Annotated[Text, Option(help="Where to run it, such as cpu or cuda:0.")]
Seed = Annotated[int, Option(help="Seed of PyTorch's random numbers.")]
Out = Annotated[Path | None, Option(help="Write the report, a .html or .json file.")]
Directory = Annotated[Path, Option("--out", help="Directory to write to.")]
AsJson = Annotated[bool, Option("--json", help="Print the content as JSON.")]
FailOn = Annotated[
    Severity | None, Option(help="Exit with 1 for a finding at least this severe.")
]
Code = Annotated[str, Argument(help="A code, such as LP001.")]
Quiet = Annotated[bool, Option("--quiet", help="No progress, no table, no remarks.")]
Debug = Annotated[bool, Option("--debug", help="Show the traceback of an error.")]
Version = Annotated[bool, Option("--version", help="Show the version.", is_eager=True)]
