"""The package, as its users install it."""

from toolkit.testing import PluginSuite


class TestPackage(PluginSuite):
    distribution = "toolkit-hello"
