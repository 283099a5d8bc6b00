"""Sphinx settings: every warning is an error in `make docs`."""

import layerpeel

project = "layerpeel"
author = "The layerpeel developers"
copyright = "2026, The layerpeel developers"
version = release = layerpeel.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "myst_parser",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
# Type names stand as they are written in the signatures.
python_use_unqualified_type_names = True

# Other projects' objects, the shapes in annotations, and errors that docstrings name
# without their module.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|torchmetrics|jaxtyping|collections)\b.*"),
    ("py:.*", r"(numpy|pandas|matplotlib|pathlib|os)\b.*"),
    (
        "py:class",
        r"'.*'|Tensor|Int64|nn\.\w+|Trainer|Layers|OfMeasurement|K|m|n|d|p|r|_",
    ),
    ("py:exc", r"\w+(Error|Warning)"),
    (
        "py:class",
        r"layerpeel\.(reports|measurement|program|landscape|edits|studies)"
        r"\.\w+(\.\w+){0,2}\.\w+",
    ),
]

html_theme = "furo"
html_title = "layerpeel"
html_copy_source = False
