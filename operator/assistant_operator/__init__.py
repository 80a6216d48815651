"""The cluster side of the platform: makes each tenant's namespace and stores be as its resources say."""
