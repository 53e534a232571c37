"""What the demo works on: a small file, what is typed into it, an instruction, and a check of the edited file.

Chosen by trying: the default model completes these places well, and the edit model does this edit right.
"""

from __future__ import annotations

from dataclasses import dataclass

FILE_NAME = "orders.py"

# The file, in two halves: the cursor stands between them.
BEFORE_CURSOR = '''\
from dataclasses import dataclass


@dataclass
class Item:
    name: str
    price: float
    quantity: int


def total_price(items: list[Item]) -> float:
    """Price times quantity, summed over all items."""
    '''

AFTER_CURSOR = '''


def receipt(items: list[Item]) -> str:
    """One line for each item, then the total."""
    lines = []
    for item in items:
        cost = item.price * item.quantity
        lines.append(f"{item.quantity} x {item.name}: {cost:.2f}")
    total = sum(item.price * item.quantity for item in items)
    lines.append(f"total: {total:.2f}")
    return "\\n".join(lines)
'''

FIRST_KEYS = "return"

NEXT_FUNCTION = '''


def sold_out(items: list[Item]) -> list[str]:
    """Names of the items of which none is left."""
    return'''


@dataclass(frozen=True, kw_only=True)
class EditTask:
    """An edit of the whole file. ``check`` is appended to the edited file and run.

    What the file did before it must still do, and what was asked for as well; ``checked`` names that in words.
    """

    instruction: str
    check: str
    checked: str


USUAL_TASK = EditTask(
    instruction=(
        "Give Item a property cost that returns price times quantity. Use item.cost in total_price and in receipt."
    ),
    check="""
tea, milk = Item("tea", 2.5, 2), Item("milk", 1.0, 0)
assert tea.cost == 5.0, f"tea.cost is {tea.cost}, not 5.0"
assert total_price([tea, milk]) == 5.0, "total_price is wrong"
assert sold_out([tea, milk]) == ["milk"], "sold_out is wrong"
assert receipt([tea, milk]).splitlines() == ["2 x tea: 5.00", "0 x milk: 0.00", "total: 5.00"], "receipt is wrong"
""",
    checked="Item.cost, total_price, sold_out and receipt give what they should",
)

# What the model for completions can do where it has to answer edits too.
SMALL_TASK = EditTask(
    instruction="In receipt, raise ValueError when items is empty.",
    check="""
tea, milk = Item("tea", 2.5, 2), Item("milk", 1.0, 0)
assert total_price([tea, milk]) == 5.0, "total_price is wrong"
assert sold_out([tea, milk]) == ["milk"], "sold_out is wrong"
assert receipt([tea, milk]).splitlines() == ["2 x tea: 5.00", "0 x milk: 0.00", "total: 5.00"], "receipt is wrong"
try:
    receipt([])
except ValueError:
    pass
else:
    raise AssertionError("receipt accepts an empty list")
""",
    checked="receipt refuses an empty list, and everything else gives what it did",
)
