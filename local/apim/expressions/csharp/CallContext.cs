using System;
using System.Collections.Generic;
using Newtonsoft.Json.Linq;

namespace Apim
{
    /// The `context` of one call. The host changes it between expressions; expressions can only read it.
    internal sealed class CallContext : IProxyRequestContext
    {
        private readonly JObject json;

        public CallContext(JObject json)
        {
            this.json = json;
            RequestId = Guid.Parse((string)json["RequestId"]);
            Timestamp = Json.OptionalTime(json["Timestamp"]) ?? DateTime.UtcNow;
        }

        public IContextApi Api => json["Api"] is JObject part ? new Api(part) : null;

        public IBackend Backend => json["Backend"] is JObject part ? new Backend(part) : null;

        public IDeployment Deployment => json["Deployment"] is JObject part ? new Deployment(part) : null;

        public TimeSpan Elapsed => DateTime.UtcNow - Timestamp;

        public ILastError LastError => json["LastError"] is JObject part ? new LastError(part) : null;

        public IOperation Operation => json["Operation"] is JObject part ? new Operation(part) : null;

        public IProduct Product => json["Product"] is JObject part ? new Product(part) : null;

        public IRequest Request { get; set; }

        public Guid RequestId { get; }

        public IResponse Response { get; set; }

        public ISubscription Subscription => json["Subscription"] is JObject part ? new Subscription(part) : null;

        public DateTime Timestamp { get; }

        public bool Tracing => (bool?)json["Tracing"] ?? false;

        public IUser User => json["User"] is JObject part ? new User(part) : null;

        public Lookup<object> Values { get; } = new Lookup<object>(StringComparer.Ordinal);

        public IReadOnlyDictionary<string, object> Variables => Values;

        public IWorkspace Workspace => json["Workspace"] is JObject part ? new Workspace(part) : null;

        /// Bodies by id: a message that is replaced keeps the state of a body that it shares with the old one.
        public Dictionary<string, MessageBody> Bodies { get; } = new Dictionary<string, MessageBody>();

        public List<string> Traces { get; } = new List<string>();

        public void Trace(string message) => Traces.Add(message);

        public void SetPart(string name, JToken part) => json[name] = part;
    }
}
