"""What is known: the nouns, the file that holds them, and the queries over them."""

from .store import BusyOrFull as BusyOrFull
from .store import NotFound as NotFound
from .store import Store as Store
from .store import StoreProblem as StoreProblem
