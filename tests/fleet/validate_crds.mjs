// Custom resources on standard input (a JSON array) against their operators' schemas; one line per fault, exit status 1.
import { text } from "node:stream/consumers";

const packages = {
  "gateway.envoyproxy.io": "envoy-gateway",
  "karpenter.k8s.aws": "karpenter",
  "karpenter.sh": "karpenter",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
  "gateway.networking.k8s.io": "gateway-api",
};
let faults = 0;
for (const object of JSON.parse(await text(process.stdin))) {
  const [group, version] = object.apiVersion.split("/");
  const kinds = await import(`@kubernetes-models/${packages[group]}/${group}/${version}/index`);
  try {
    new kinds[object.kind](object).validate();
  } catch (error) {
    faults += 1;
    console.log(`${object.kind}/${object.metadata.name}: ${error.message}`);
  }
}
process.exit(faults ? 1 : 0);
