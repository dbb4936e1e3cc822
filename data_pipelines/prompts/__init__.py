"""Instructions and answers as text, in English and Chinese.

terms.yaml names things, templates.yaml words questions, statements.yaml holds the sentences of captions and
reports; all are data and carry a version. `answers` turns a structured target into the text a model is trained to say,
`render` words the question.
"""

from data_pipelines.prompts.answers import AnswerError, answer_text, options_text
from data_pipelines.prompts.render import TemplateError, render_question, templates_version, using_templates
from data_pipelines.prompts.statements import STATEMENTS_VERSION, join, measure_list, name_list, say, state
from data_pipelines.prompts.terms import TermError, quantity, term, term_names

__all__ = [
    "STATEMENTS_VERSION",
    "AnswerError",
    "TemplateError",
    "TermError",
    "answer_text",
    "join",
    "measure_list",
    "name_list",
    "options_text",
    "quantity",
    "render_question",
    "say",
    "state",
    "templates_version",
    "term",
    "term_names",
    "using_templates",
]
