using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;

namespace Apim
{
    /// Reads what the caller sends, without the date guessing that Json.NET does for expressions.
    internal static class Json
    {
        public static JObject Parse(string text)
        {
            using (var reader = new JsonTextReader(new StringReader(text)) { DateParseHandling = DateParseHandling.None })
            {
                return JObject.Load(reader);
            }
        }

        public static DateTime Time(JToken token)
        {
            return DateTime.Parse(
                (string)token,
                CultureInfo.InvariantCulture,
                DateTimeStyles.AdjustToUniversal | DateTimeStyles.AssumeUniversal);
        }

        public static DateTime? OptionalTime(JToken token)
        {
            return token == null || token.Type == JTokenType.Null ? (DateTime?)null : Time(token);
        }

        public static IEnumerable<T> List<T>(JToken token, Func<JObject, T> make)
        {
            return token is JArray items ? items.Cast<JObject>().Select(make).ToList() : new List<T>();
        }
    }
}
