"""Who may do what: tenants with their quotas, users, roles, tokens. Pure: nothing here reads or writes anything.

Import from the modules: `model` needs `tenancy.names`, and the rest of this package needs `model`.
"""
