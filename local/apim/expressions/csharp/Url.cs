using System;
using System.Collections.Generic;
using System.Linq;

namespace Apim
{
    /// An absolute URL, split without changing a byte of it: System.Uri would decode and normalise.
    internal sealed class Url : IUrl
    {
        private readonly string text;

        public Url(string text)
        {
            this.text = text;
            var scheme = text.IndexOf("://", StringComparison.Ordinal);
            if (scheme <= 0)
            {
                throw new FormatException($"Not an absolute URL: {text}");
            }
            Scheme = text.Substring(0, scheme);
            var start = scheme + 3;
            var end = text.IndexOfAny(new[] { '/', '?' }, start);
            var authority = end < 0 ? text.Substring(start) : text.Substring(start, end - start);
            var rest = end < 0 ? "" : text.Substring(end);

            var colon = authority.LastIndexOf(':');
            var hasPort = colon >= 0 && colon > authority.LastIndexOf(']');
            Host = hasPort ? authority.Substring(0, colon) : authority;
            Port = hasPort ? int.Parse(authority.Substring(colon + 1)) : Scheme == "https" ? 443 : 80;

            var question = rest.IndexOf('?');
            Path = question < 0 ? rest : rest.Substring(0, question);
            if (Path == "")
            {
                Path = "/";
            }
            QueryString = question < 0 ? "" : rest.Substring(question);

            var query = new Lookup<string[]>(StringComparer.OrdinalIgnoreCase);
            foreach (var group in DecodeForm(QueryString.TrimStart('?'))
                .GroupBy(pair => pair.Key, pair => pair.Value, StringComparer.OrdinalIgnoreCase))
            {
                query[group.Key] = group.ToArray();
            }
            Query = query;
        }

        public string Host { get; }

        public string Path { get; }

        public int Port { get; }

        public IReadOnlyDictionary<string, string[]> Query { get; }

        public string QueryString { get; }

        public string Scheme { get; }

        public override string ToString() => text;

        public static Url FromJson(Newtonsoft.Json.Linq.JToken json)
        {
            var text = (string)json;
            return text == null ? null : new Url(text);
        }

        public static IEnumerable<KeyValuePair<string, string>> DecodeForm(string form)
        {
            foreach (var part in form.Split(new[] { '&' }, StringSplitOptions.RemoveEmptyEntries))
            {
                var equals = part.IndexOf('=');
                var name = equals < 0 ? part : part.Substring(0, equals);
                var value = equals < 0 ? "" : part.Substring(equals + 1);
                yield return new KeyValuePair<string, string>(DecodePart(name), DecodePart(value));
            }
        }

        private static string DecodePart(string part) => Uri.UnescapeDataString(part.Replace('+', ' '));
    }
}
