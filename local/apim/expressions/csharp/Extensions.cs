// The extension methods that API Management adds to the types it documents.

using System;
using System.Collections.Generic;
using System.IO;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Newtonsoft.Json.Linq;

namespace Apim
{
    public static class DictionaryExtensions
    {
        /// A header, query parameter or claim; several values are joined by commas.
        public static string GetValueOrDefault(
            this IReadOnlyDictionary<string, string[]> dictionary, string name, string defaultValue = null)
        {
            return dictionary.TryGetValue(name, out var values) ? string.Join(",", values) : defaultValue;
        }

        public static string GetValueOrDefault(
            this IReadOnlyDictionary<string, string> dictionary, string name, string defaultValue = null)
        {
            return dictionary.TryGetValue(name, out var value) ? value : defaultValue;
        }

        /// A context variable. A variable of another type than T is an error, not the default.
        public static T GetValueOrDefault<T>(
            this IReadOnlyDictionary<string, object> dictionary, string name, T defaultValue = default(T))
        {
            if (!dictionary.TryGetValue(name, out var value))
            {
                return defaultValue;
            }
            if (value is T || (value == null && default(T) == null))
            {
                return (T)value;
            }
            throw new UserVariableCastException(name, typeof(T), value?.GetType());
        }

        public static string ToFormUrlEncodedContent(this IDictionary<string, IList<string>> dictionary)
        {
            var parts = new List<string>();
            foreach (var pair in dictionary)
            {
                foreach (var value in pair.Value)
                {
                    parts.Add(Uri.EscapeDataString(pair.Key) + "=" + Uri.EscapeDataString(value));
                }
            }
            return string.Join("&", parts);
        }

        public static string ToQueryString(this IDictionary<string, IList<string>> dictionary)
        {
            var content = dictionary.ToFormUrlEncodedContent();
            return content == "" ? content : "?" + content;
        }
    }

    public static class TokenExtensions
    {
        public static Jwt AsJwt(this string input) => ParsedJwt.Parse(input);

        public static bool TryParseJwt(this string input, out Jwt result)
        {
            result = ParsedJwt.Parse(input);
            return result != null;
        }

        public static BasicAuthCredentials AsBasic(this string input) => ParsedBasic.Parse(input);

        public static bool TryParseBasic(this string input, out BasicAuthCredentials result)
        {
            result = ParsedBasic.Parse(input);
            return result != null;
        }
    }

    public static class CryptoExtensions
    {
        public static byte[] Encrypt(this byte[] input, string alg, byte[] key, byte[] iv)
        {
            using (var algorithm = SymmetricAlgorithm.Create(alg))
            {
                return Encrypt(input, algorithm, key, iv);
            }
        }

        public static byte[] Encrypt(this byte[] input, SymmetricAlgorithm alg)
        {
            return Transform(input, alg.CreateEncryptor());
        }

        public static byte[] Encrypt(this byte[] input, SymmetricAlgorithm alg, byte[] key, byte[] iv)
        {
            return Transform(input, alg.CreateEncryptor(key, iv));
        }

        public static byte[] Decrypt(this byte[] input, string alg, byte[] key, byte[] iv)
        {
            using (var algorithm = SymmetricAlgorithm.Create(alg))
            {
                return Decrypt(input, algorithm, key, iv);
            }
        }

        public static byte[] Decrypt(this byte[] input, SymmetricAlgorithm alg)
        {
            return Transform(input, alg.CreateDecryptor());
        }

        public static byte[] Decrypt(this byte[] input, SymmetricAlgorithm alg, byte[] key, byte[] iv)
        {
            return Transform(input, alg.CreateDecryptor(key, iv));
        }

        public static bool VerifyNoRevocation(this X509Certificate2 input)
        {
            var chain = new X509Chain();
            chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
            return chain.Build(input);
        }

        private static byte[] Transform(byte[] input, ICryptoTransform transform)
        {
            using (transform)
            {
                return transform.TransformFinalBlock(input, 0, input.Length);
            }
        }
    }

    /// Members of newer versions of Json.NET that API Management has and Debian's 6.0 lacks.
    public static class JsonExtensions
    {
        public static bool ContainsKey(this JObject json, string propertyName) => json.Property(propertyName) != null;
    }
}
