"""Prompts: safe templates, chosen demonstrations, messages, token budget and digests. Nothing here writes to the database."""

from .budget import BudgetProblem as BudgetProblem
from .budget import Fitted as Fitted
from .budget import fit as fit
from .chat import PromptProblem as PromptProblem
from .chat import build_messages as build_messages
from .chat import build_prompt as build_prompt
from .fewshot import FewShot as FewShot
from .fewshot import FewShotProblem as FewShotProblem
from .fewshot import choose as choose
from .template import Compiled as Compiled
from .template import TemplateProblem as TemplateProblem
from .template import compile_template as compile_template
from .template import render as render
from .template import variables as variables
