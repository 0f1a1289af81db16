"""The Helm chart, written from the kustomize manifests. `python -m k8s.helm` writes it into k8s/helm/mynah."""
