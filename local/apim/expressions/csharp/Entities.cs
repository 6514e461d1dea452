// What surrounds a call: the API, the product, the subscription and so on. Each is read from one JSON object whose
// members are named as in C#; a member that is left out is null, false or the first moment of time.

using System;
using System.Collections.Generic;
using System.Linq;
using System.Security.Cryptography.X509Certificates;
using Newtonsoft.Json.Linq;

namespace Apim
{
    internal abstract class Entity
    {
        protected Entity(JObject json)
        {
            Json = json;
        }

        protected JObject Json { get; }

        public string Id => Text("Id");

        public string Name => Text("Name");

        protected string Text(string member) => (string)Json[member];

        protected bool Flag(string member) => (bool?)Json[member] ?? false;

        protected DateTime Time(string member) => Apim.Json.OptionalTime(Json[member]) ?? default(DateTime);
    }

    internal sealed class Api : Entity, IContextApi
    {
        public Api(JObject json) : base(json)
        {
        }

        public bool IsCurrentRevision => (bool?)Json["IsCurrentRevision"] ?? true;

        public string Path => Text("Path");

        public IEnumerable<string> Protocols =>
            Json["Protocols"] is JArray protocols ? protocols.Select(item => (string)item) : new[] { "https" };

        public string Revision => Text("Revision") ?? "1";

        public IUrl ServiceUrl => Url.FromJson(Json["ServiceUrl"]);

        public ISubscriptionKeyParameterNames SubscriptionKeyParameterNames =>
            Json["SubscriptionKeyParameterNames"] is JObject names ? new KeyNames(names) : null;

        public string Version => Text("Version");

        private sealed class KeyNames : Entity, ISubscriptionKeyParameterNames
        {
            public KeyNames(JObject json) : base(json)
            {
            }

            public string Header => Text("Header");

            public string Query => Text("Query");
        }
    }

    internal sealed class Backend : Entity, IBackend
    {
        public Backend(JObject json) : base(json)
        {
        }

        public string AzureRegion => Text("AzureRegion");

        public string Type => Text("Type");
    }

    internal sealed class Deployment : Entity, IDeployment
    {
        public Deployment(JObject json) : base(json)
        {
        }

        public IReadOnlyDictionary<string, X509Certificate2> Certificates { get; } =
            new Lookup<X509Certificate2>(StringComparer.Ordinal);

        public string GatewayId => Text("GatewayId") ?? "managed";

        public string Region => Text("Region");

        public string ServiceId => Text("ServiceId");

        public string ServiceName => Text("ServiceName");
    }

    internal sealed class Group : Entity, IGroup
    {
        public Group(JObject json) : base(json)
        {
        }
    }

    internal sealed class LastError : Entity, ILastError
    {
        public LastError(JObject json) : base(json)
        {
        }

        public string Message => Text("Message");

        public string Path => Text("Path");

        public string PolicyId => Text("PolicyId");

        public string Reason => Text("Reason");

        public string Scope => Text("Scope");

        public string Section => Text("Section");

        public string Source => Text("Source");
    }

    internal sealed class Operation : Entity, IOperation
    {
        public Operation(JObject json) : base(json)
        {
        }

        public string Method => Text("Method");

        public string UrlTemplate => Text("UrlTemplate");
    }

    internal sealed class Product : Entity, IProduct
    {
        public Product(JObject json) : base(json)
        {
        }

        public IEnumerable<IApi> Apis => Apim.Json.List<IApi>(Json["Apis"], item => new Api(item));

        public bool ApprovalRequired => Flag("ApprovalRequired");

        public IEnumerable<IGroup> Groups => Apim.Json.List<IGroup>(Json["Groups"], item => new Group(item));

        public ProductState State =>
            Text("State") == "NotPublished" ? ProductState.NotPublished : ProductState.Published;

        public int? SubscriptionsLimit => (int?)Json["SubscriptionsLimit"];

        public bool SubscriptionRequired => (bool?)Json["SubscriptionRequired"] ?? true;
    }

    internal sealed class Subscription : Entity, ISubscription
    {
        public Subscription(JObject json) : base(json)
        {
        }

        public DateTime CreatedDate => Time("CreatedDate");

        public DateTime? EndDate => Apim.Json.OptionalTime(Json["EndDate"]);

        public string Key => Text("Key");

        public string PrimaryKey => Text("PrimaryKey");

        public string SecondaryKey => Text("SecondaryKey");

        public DateTime? StartDate => Apim.Json.OptionalTime(Json["StartDate"]);
    }

    internal sealed class User : Entity, IUser
    {
        public User(JObject json) : base(json)
        {
        }

        public string Email => Text("Email");

        public string FirstName => Text("FirstName");

        public IEnumerable<IGroup> Groups => Apim.Json.List<IGroup>(Json["Groups"], item => new Group(item));

        public IEnumerable<IUserIdentity> Identities =>
            Apim.Json.List<IUserIdentity>(Json["Identities"], item => new Identity(item));

        public string LastName => Text("LastName");

        public string Note => Text("Note");

        public DateTime RegistrationDate => Time("RegistrationDate");

        private sealed class Identity : Entity, IUserIdentity
        {
            public Identity(JObject json) : base(json)
            {
            }

            public string Provider => Text("Provider");
        }
    }

    internal sealed class Workspace : Entity, IWorkspace
    {
        public Workspace(JObject json) : base(json)
        {
        }
    }
}
