using System;
using System.Collections.Generic;
using System.Linq;
using System.Security.Cryptography.X509Certificates;
using Newtonsoft.Json.Linq;

namespace Apim
{
    internal sealed class Request : IRequest
    {
        public Request(JObject json, IMessageBody body)
        {
            Body = body;
            Headers = MessageParts.Headers(json["headers"]);
            Method = (string)json["method"];
            IpAddress = (string)json["ip_address"];
            Url = Apim.Url.FromJson(json["url"]);
            OriginalUrl = Apim.Url.FromJson(json["original_url"]) ?? Url;
            var matched = new Lookup<string>(StringComparer.OrdinalIgnoreCase);
            foreach (var property in ((JObject)json["matched_parameters"]).Properties())
            {
                matched[property.Name] = (string)property.Value;
            }
            MatchedParameters = matched;
            Foundry = json["foundry_deployment"] is JValue deployment ? new Foundry((string)deployment) : null;
        }

        public IMessageBody Body { get; }

        public X509Certificate2 Certificate => null;

        public IFoundry Foundry { get; }

        public IReadOnlyDictionary<string, string[]> Headers { get; }

        public string IpAddress { get; }

        public IReadOnlyDictionary<string, string> MatchedParameters { get; }

        public string Method { get; }

        public IUrl OriginalUrl { get; }

        public IPrivateEndpointConnection PrivateEndpointConnection => null;

        public IUrl Url { get; }
    }

    internal sealed class Foundry : IFoundry
    {
        public Foundry(string deployment)
        {
            Deployment = deployment;
        }

        public string Deployment { get; }
    }

    internal sealed class Response : IResponse
    {
        public Response(JObject json, IMessageBody body)
        {
            Body = body;
            Headers = MessageParts.Headers(json["headers"]);
            StatusCode = (int)json["status_code"];
            StatusReason = (string)json["status_reason"];
        }

        public IMessageBody Body { get; }

        public IReadOnlyDictionary<string, string[]> Headers { get; }

        public int StatusCode { get; }

        public string StatusReason { get; }
    }

    internal static class MessageParts
    {
        public static Lookup<string[]> Headers(JToken json)
        {
            var headers = new Lookup<string[]>(StringComparer.OrdinalIgnoreCase);
            foreach (var property in ((JObject)json).Properties())
            {
                headers[property.Name] = property.Value.Select(value => (string)value).ToArray();
            }
            return headers;
        }
    }
}
