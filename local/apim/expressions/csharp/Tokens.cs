using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Text;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;

namespace Apim
{
    /// A token that was taken apart, not verified: AsJwt does not check signatures in API Management either.
    internal sealed class ParsedJwt : Jwt
    {
        private const string BearerPrefix = "Bearer ";

        private readonly JObject header;
        private readonly Lookup<string[]> claims = new Lookup<string[]>(StringComparer.OrdinalIgnoreCase);

        private ParsedJwt(JObject header, JObject payload)
        {
            this.header = header;
            foreach (var property in payload.Properties())
            {
                claims[property.Name] = property.Value is JArray array
                    ? array.Select(Text).ToArray()
                    : new[] { Text(property.Value) };
            }
        }

        public string Algorithm => (string)header["alg"];

        public IEnumerable<string> Audiences => claims.TryGetValue("aud", out var values) ? values : new string[0];

        public IReadOnlyDictionary<string, string[]> Claims => claims;

        public DateTime? ExpirationTime => Time("exp");

        public string Id => First("jti");

        public DateTime? IssuedAt => Time("iat");

        public string Issuer => First("iss");

        public DateTime? NotBefore => Time("nbf");

        public string Subject => First("sub");

        public string Type => (string)header["typ"];

        public static ParsedJwt Parse(string input)
        {
            if (string.IsNullOrWhiteSpace(input))
            {
                return null;
            }
            var token = input.StartsWith(BearerPrefix, StringComparison.OrdinalIgnoreCase)
                ? input.Substring(BearerPrefix.Length)
                : input;
            var parts = token.Trim().Split('.');
            if (parts.Length != 3)
            {
                return null;
            }
            try
            {
                return new ParsedJwt(DecodePart(parts[0]), DecodePart(parts[1]));
            }
            catch (FormatException)
            {
                return null;
            }
            catch (JsonException)
            {
                return null;
            }
        }

        private static JObject DecodePart(string part)
        {
            var base64 = part.Replace('-', '+').Replace('_', '/');
            base64 += new string('=', (4 - base64.Length % 4) % 4);
            return Json.Parse(Encoding.UTF8.GetString(System.Convert.FromBase64String(base64)));
        }

        private static string Text(JToken token)
        {
            switch (token.Type)
            {
                case JTokenType.String:
                    return (string)token;
                case JTokenType.Boolean:
                    return (bool)token ? "true" : "false";
                default:
                    return token.ToString(Formatting.None);
            }
        }

        private string First(string claim) => claims.TryGetValue(claim, out var values) ? values.FirstOrDefault() : null;

        private DateTime? Time(string claim)
        {
            return double.TryParse(First(claim), NumberStyles.Float, CultureInfo.InvariantCulture, out var seconds)
                ? new DateTime(1970, 1, 1, 0, 0, 0, DateTimeKind.Utc).AddSeconds(seconds)
                : (DateTime?)null;
        }
    }

    internal sealed class ParsedBasic : BasicAuthCredentials
    {
        private const string BasicPrefix = "Basic ";

        private ParsedBasic(string userId, string password)
        {
            UserId = userId;
            Password = password;
        }

        public string Password { get; }

        public string UserId { get; }

        public static ParsedBasic Parse(string input)
        {
            if (input == null || !input.StartsWith(BasicPrefix, StringComparison.OrdinalIgnoreCase))
            {
                return null;
            }
            try
            {
                var pair = Encoding.UTF8.GetString(System.Convert.FromBase64String(input.Substring(BasicPrefix.Length)));
                var colon = pair.IndexOf(':');
                return colon < 0 ? null : new ParsedBasic(pair.Substring(0, colon), pair.Substring(colon + 1));
            }
            catch (FormatException)
            {
                return null;
            }
        }
    }
}
