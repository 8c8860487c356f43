"""Settings of Sphinx. `python docs/site/build.py` collects the pages and calls it."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

project = "ecoscale"
html_title = "ecoscale"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
highlight_language = "none"  # of blocks that name none

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = {"math"}
myst_heading_anchors = 4
# Docstrings are plain text with `code`, not reStructuredText; markup that happens to look like it is no error.
default_role = "code"
suppress_warnings = ["docutils"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_use_type_comments = False
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

html_theme = "furo"  # system fonts, nothing from elsewhere
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"


def inline_math(translator: Any, node: nodes.math) -> None:
    """Write a formula of a line as MathML, which browsers draw without a script."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def display_math(translator: Any, node: nodes.math_block) -> None:
    """Write a formula that stands by itself."""
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
