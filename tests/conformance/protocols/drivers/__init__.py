# SPDX-License-Identifier: Apache-2.0
"""Every row of the matrix. A new protocol is one module here, and one line in this table."""

from tests.conformance.protocols.driver import Driver
from tests.conformance.protocols.drivers.curl import CurlDriver
from tests.conformance.protocols.drivers.http import HttpDriver

DRIVERS: tuple[Driver, ...] = (HttpDriver(), CurlDriver())
