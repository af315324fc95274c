"""Which wall for which risk. Rules as data; nothing here asks the host or changes anything."""

from bulkhead.advise.levels import RULES, Rule, Workload, choose, may_share

__all__ = ["RULES", "Rule", "Workload", "choose", "may_share"]
