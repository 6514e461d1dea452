using System;
using System.Collections.Generic;
using System.IO;
using System.Text;
using System.Xml;
using System.Xml.Linq;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;

namespace Apim
{
    /// The body of a message. Its bytes stay with the caller until an expression asks for them.
    internal sealed class MessageBody : IMessageBody
    {
        /// What API Management buffers for policies, in every tier.
        public const long BufferLimit = 2 * 1024 * 1024;

        private readonly IBodySource source;
        private readonly long size;
        private readonly bool isStreamed;
        private byte[] content;

        public MessageBody(string id, long size, bool isStreamed, IBodySource source)
        {
            Id = id;
            this.size = size;
            this.isStreamed = isStreamed;
            this.source = source;
        }

        public string Id { get; }

        public bool IsConsumed { get; private set; }

        public T As<T>(bool preserveContent = false) where T : class
        {
            return (T)Convert(Read(preserveContent), typeof(T));
        }

        public IDictionary<string, IList<string>> AsFormUrlEncodedContent(bool preserveContent = false)
        {
            var form = new Dictionary<string, IList<string>>();
            foreach (var pair in Url.DecodeForm(Decode(Read(preserveContent))))
            {
                if (!form.TryGetValue(pair.Key, out var values))
                {
                    form[pair.Key] = values = new List<string>();
                }
                values.Add(pair.Value);
            }
            return form;
        }

        private byte[] Read(bool preserveContent)
        {
            if (isStreamed)
            {
                // An expression may catch the exception below; the caller must hear of the read all the same.
                source.ReportStreamedRead();
                throw new StreamedBodyException();
            }
            if (IsConsumed)
            {
                throw new BodyConsumedException();
            }
            if (size > BufferLimit)
            {
                throw new BodyTooLargeException(size, BufferLimit);
            }
            if (content == null)
            {
                content = source.Fetch(Id);
            }
            if (!preserveContent)
            {
                IsConsumed = true;
                source.ReportConsumed(Id);
            }
            return content;
        }

        private static object Convert(byte[] bytes, Type type)
        {
            if (type == typeof(byte[]))
            {
                return bytes.Clone();
            }
            var text = Decode(bytes);
            if (type == typeof(string))
            {
                return text;
            }
            try
            {
                if (type == typeof(JObject))
                {
                    return JObject.Parse(text);
                }
                if (type == typeof(JArray))
                {
                    return JArray.Parse(text);
                }
                if (type == typeof(JToken))
                {
                    return JToken.Parse(text);
                }
            }
            catch (JsonException cause)
            {
                throw new BodyFormatException("JSON", cause);
            }
            try
            {
                if (type == typeof(XElement) || type == typeof(XNode))
                {
                    return XElement.Parse(text);
                }
                if (type == typeof(XDocument))
                {
                    return XDocument.Parse(text);
                }
            }
            catch (XmlException cause)
            {
                throw new BodyFormatException("XML", cause);
            }
            throw new NotSupportedException($"The message body cannot be read as {type.FullName}.");
        }

        private static string Decode(byte[] bytes)
        {
            using (var reader = new StreamReader(new MemoryStream(bytes), new UTF8Encoding(false)))
            {
                return reader.ReadToEnd();
            }
        }
    }

    internal interface IBodySource
    {
        byte[] Fetch(string bodyId);

        void ReportConsumed(string bodyId);

        void ReportStreamedRead();
    }
}
