using System;
using System.Globalization;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;

namespace Apim
{
    /// Values on their way between C# and the caller: {"type": C# type, "value": JSON form, "text": as policies write it}.
    internal static class Values
    {
        public static JObject Encode(object value)
        {
            return new JObject
            {
                ["type"] = value?.GetType().FullName,
                ["value"] = EncodeValue(value),
                ["text"] = Text(value),
            };
        }

        public static object Decode(JToken json)
        {
            var value = json["value"];
            switch ((string)json["type"])
            {
                case "null":
                    return null;
                case "bool":
                    return (bool)value;
                case "int":
                    return (int)value;
                case "long":
                    return (long)value;
                case "double":
                    return double.Parse((string)value, NumberStyles.Float, CultureInfo.InvariantCulture);
                case "decimal":
                    return decimal.Parse((string)value, NumberStyles.Float, CultureInfo.InvariantCulture);
                case "string":
                    return (string)value;
                case "bytes":
                    return Convert.FromBase64String((string)value);
                case "time":
                    return Json.Time(value);
                case "guid":
                    return Guid.Parse((string)value);
                case "json":
                    // As an expression would have parsed it: strings that look like dates become dates.
                    return JToken.Parse((string)value);
                case "jwt":
                    return ParsedJwt.Parse((string)value) ?? throw new FormatException("Not a JSON Web Token.");
                default:
                    throw new ArgumentException($"Unknown type {json["type"]} of a value.");
            }
        }

        /// The types that set-variable documents for what it keeps.
        public static bool CanBeVariable(object value)
        {
            if (value == null || value is JToken || value is byte[] || value is sbyte[] || value is Guid || value is TimeSpan)
            {
                return true;
            }
            // The basic types from Boolean to DateTime, and String.
            var code = Type.GetTypeCode(value.GetType());
            return !(value is Enum) && code != TypeCode.Object && code != TypeCode.DBNull;
        }

        /// As API Management writes a value into an attribute or a text.
        private static string Text(object value)
        {
            return value == null ? "" : Convert.ToString(value, CultureInfo.InvariantCulture);
        }

        private static JToken EncodeValue(object value)
        {
            if (value == null)
            {
                return JValue.CreateNull();
            }
            if (value is JToken token)
            {
                // Sent as text: inside the answer the caller could not tell a date from a string.
                return token.ToString(Formatting.None);
            }
            if (value is byte[] bytes)
            {
                return Convert.ToBase64String(bytes);
            }
            if (value is DateTime || value is DateTimeOffset)
            {
                return ((IFormattable)value).ToString("o", CultureInfo.InvariantCulture);
            }
            if (value is TimeSpan span)
            {
                return span.Ticks;
            }
            if (value is Enum)
            {
                return Text(value);
            }
            switch (Type.GetTypeCode(value.GetType()))
            {
                case TypeCode.Boolean:
                    return (bool)value;
                case TypeCode.SByte:
                case TypeCode.Byte:
                case TypeCode.Int16:
                case TypeCode.UInt16:
                case TypeCode.Int32:
                case TypeCode.UInt32:
                case TypeCode.Int64:
                    return Convert.ToInt64(value);
                case TypeCode.Single:
                case TypeCode.Double:
                    return Convert.ToDouble(value).ToString("R", CultureInfo.InvariantCulture);
                default:
                    return Text(value);
            }
        }
    }
}
