# SPDX-License-Identifier: Apache-2.0
"""Networks of namespaces to try Sluice in: see lab.py and scene.py."""
