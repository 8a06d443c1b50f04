//! Link, address, route, FDB and neighbour IR, diff, rtnetlink adapter and fake.
