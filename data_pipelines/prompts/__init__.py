"""Instructions and answers as text, in English and Chinese.

terms.yaml names things, templates.yaml words questions; both are data and carry a version. `answers` turns a structured
target into the text a model is trained to say, `render` the question side.
"""

from data_pipelines.prompts.answers import AnswerError, answer_text, options_text
from data_pipelines.prompts.render import TEMPLATES_VERSION, TemplateError, render_question
from data_pipelines.prompts.terms import TermError, quantity, term, term_names

__all__ = [
    "TEMPLATES_VERSION",
    "AnswerError",
    "TemplateError",
    "TermError",
    "answer_text",
    "options_text",
    "quantity",
    "render_question",
    "term",
    "term_names",
]
