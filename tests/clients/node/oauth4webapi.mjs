// oauth4webapi against a running server: its strict checks of metadata, of token exchange (RFC 8693) and of access tokens
// (RFC 9068). It takes its configuration as JSON in the first argument and prints `result <json>`.
import * as oauth from "oauth4webapi";

const options = JSON.parse(process.argv[2]);
const insecure = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(options.issuer);

const metadata = {};
for (const algorithm of ["oidc", "oauth2"]) {
  const response = await oauth.discoveryRequest(issuer, { algorithm, ...insecure });
  metadata[algorithm] = await oauth.processDiscoveryResponse(issuer, response);
}
const server = metadata.oauth2;
const client = { client_id: options.clientId };
const secret = oauth.ClientSecretPost(options.clientSecret);

const response = await oauth.clientCredentialsGrantRequest(server, client, secret, new URLSearchParams(), insecure);
const own = await oauth.processClientCredentialsResponse(server, client, response);

const exchange = new URLSearchParams({
  subject_token: own.access_token,
  subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
  resource: options.resource,
});
const type = "urn:ietf:params:oauth:grant-type:token-exchange";
const exchanged = await oauth.processGenericTokenEndpointResponse(
  server,
  client,
  await oauth.genericTokenEndpointRequest(server, client, secret, type, exchange, insecure),
);

// As the resource server that the token is for: signature, typ, iss, aud and times of RFC 9068.
const request = new Request(options.resource, { headers: { authorization: `Bearer ${exchanged.access_token}` } });
const claims = await oauth.validateJwtAccessToken(server, request, options.resource, insecure);

let wrong = null;
try {
  await oauth.validateJwtAccessToken(server, request, `${options.resource}/other`, insecure);
} catch (error) {
  wrong = error.code;
}
console.log(`result ${JSON.stringify({ metadata, own, exchanged, claims, wrong })}`);
