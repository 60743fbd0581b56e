"""What every victim needs, imported once by the process that victims are forked from: their clock first."""

from tests.service.endurance.levers import install_clock

install_clock()

import tests.service.endurance.victim  # noqa: E402, F401
