//! From a WeftNetwork and cluster facts to the Kubernetes objects of the node agent.
