"""What all tenants share of one process: processor time, memory, connections, and who waits for them."""
